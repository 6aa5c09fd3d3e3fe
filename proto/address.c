#include "proto/address.h"

#include "base/printable.h"

#include <string.h>

static const char *const kind_names[] = {[ADDRESS_SESSION] = "session",
                                         [ADDRESS_USER] = "user",
                                         [ADDRESS_TOPIC] = "topic",
                                         [ADDRESS_INSTANCE] = "instance"};

const char *address_kind_name(enum address_kind kind)
{
    return kind_names[kind];
}

/* Splits at the first colon and looks the kind up; false when it isn't among the first `kinds`. */
static bool split_kind(struct slice text, size_t kinds, enum address_kind *kind, struct slice *rest)
{
    const char *colon = text.len ? memchr(text.data, ':', text.len) : NULL;

    if (!colon)
        return false;
    struct slice name = slice_from(text.data, (size_t)(colon - text.data));
    for (size_t i = 0; i < kinds; i++) {
        if (slice_is(name, kind_names[i])) {
            *kind = (enum address_kind)i;
            *rest = slice_from(colon + 1, text.len - name.len - 1);
            return true;
        }
    }
    return false;
}

const char *address_check_name(struct slice name)
{
    if (!name.len)
        return "the name is empty";
    if (name.len > ADDRESS_NAME_MAX)
        return "the name is longer than 255 bytes";
    switch (printable_check(name.data, name.len)) {
    case PRINTABLE_NOT_UTF8:
        return "the name is not valid UTF-8";
    case PRINTABLE_HAS_CONTROL:
        return "the name holds a control character";
    case PRINTABLE_HAS_HIDDEN:
        return "the name holds an invisible character";
    case PRINTABLE_OK:
        break;
    }
    return NULL;
}

const char *address_check_exclusive(struct slice name)
{
    if (name.len && memchr(name.data, ADDRESS_SHARED_MARK, name.len))
        return "~ is reserved for the names that shared sessions get";
    return address_check_name(name);
}

bool address_is_key(struct slice name)
{
    return name.len && name.len <= ADDRESS_NAME_MAX;
}

const char *address_parse(struct slice text, struct address *address)
{
    if (!split_kind(text, ADDRESS_INSTANCE, &address->kind, &address->name))
        return "an address is session:NAME, user:UID or topic:NAME";
    return address_check_name(address->name);
}

bool address_from_text(struct slice text, struct address *address)
{
    return split_kind(text, sizeof kind_names / sizeof *kind_names, &address->kind, &address->name) &&
           !address_check_name(address->name);
}

/* Whitespace beyond ASCII counts too: NEL, NBSP and the general-punctuation spaces make keys hard to read and
 * to type. */
static size_t wide_space(const char *text, size_t len)
{
    static const char *const spaces[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
                                         "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        size_t width = strlen(spaces[i]);
        if (len >= width && memcmp(text, spaces[i], width) == 0)
            return width;
    }
    if (len >= 3 && memcmp(text, "\xe2\x80", 2) == 0 && (unsigned char)text[2] >= 0x80 &&
        (unsigned char)text[2] <= 0x8a)
        return 3;
    return 0;
}

size_t address_encode_name(struct slice name, char *out)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t len = 0;
    size_t wide = 0; /* bytes of a wide space still to be encoded */

    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.data[i];
        if (!wide && c >= 0xc2)
            wide = wide_space(name.data + i, name.len - i);
        if (wide || c <= ' ' || c == 0x7f || c == '{' || c == '}' || c == '%') {
            out[len++] = '%';
            out[len++] = hex[c >> 4];
            out[len++] = hex[c & 15];
        } else {
            out[len++] = (char)c;
        }
        if (wide)
            wide--;
    }
    out[len] = '\0';
    return len;
}

size_t address_channel(const struct address *address, char out[static CHANNEL_MAX])
{
    const char *kind = kind_names[address->kind];
    size_t len = strlen(kind);

    memcpy(out, kind, len);
    out[len++] = ':';
    out[len++] = '{';
    len += address_encode_name(address->name, out + len);
    out[len++] = '}';
    out[len] = '\0';
    return len;
}

size_t address_format(const struct address *address, char out[static ADDRESS_MAX + 1])
{
    const char *kind = kind_names[address->kind];
    size_t len = strlen(kind);

    memcpy(out, kind, len);
    out[len++] = ':';
    memcpy(out + len, address->name.data, address->name.len);
    len += address->name.len;
    out[len] = '\0';
    return len;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* Decodes into `out` (ADDRESS_NAME_MAX bytes); false when malformed or too long. */
static bool decode_name(struct slice encoded, char *out, size_t *len)
{
    *len = 0;
    for (size_t i = 0; i < encoded.len; i++) {
        char c = encoded.data[i];
        if (c == '%') {
            int high = i + 2 < encoded.len ? hex_value(encoded.data[i + 1]) : -1;
            int low = high >= 0 ? hex_value(encoded.data[i + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (*len == ADDRESS_NAME_MAX)
            return false;
        out[(*len)++] = c;
    }
    return true;
}

bool address_from_channel(struct slice channel, struct address *address, char *name)
{
    struct slice rest;
    size_t len;

    if (!split_kind(channel, sizeof kind_names / sizeof *kind_names, &address->kind, &rest) || rest.len < 2 ||
        rest.data[0] != '{' || rest.data[rest.len - 1] != '}' ||
        !decode_name(slice_from(rest.data + 1, rest.len - 2), name, &len))
        return false;
    name[len] = '\0';
    address->name = slice_from(name, len);
    return address_check_name(address->name) == NULL;
}
