/* Values of configuration keys: from text, and back to text. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/utf8.h"
#include "broker/options.h"
#include "proto/slice.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LIST_MAX   16
#define PREFIX_LEN_MAX 128

struct unit {
    const char *name;
    uint64_t factor;
};

/* The largest first. */
static const struct unit size_units[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}};
static const struct unit time_units[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
enum { UNIT_COUNT = 4 };

static void *field_of(const struct option_spec *spec, const struct config *config)
{
    return (char *)(uintptr_t)config + spec->offset;
}

/* --- Numbers
 * --------------------------------------------------------------------------------------------------- */

/* Reads digits; returns what follows them, or NULL when there are none or too many. */
static const char *parse_digits(const char *text, uint64_t *number)
{
    const char *p = text;
    *number = 0;
    for (; isdigit((unsigned char)*p); p++) {
        if (p - text == 15)
            return NULL;
        *number = *number * 10 + (uint64_t)(*p - '0');
    }
    return p > text ? p : NULL;
}

static bool parse_quantity(const struct option_spec *spec, const char *text, uint64_t *out)
{
    const char *unit = parse_digits(text, out);
    if (unit == NULL)
        return false;
    if (*unit == '\0') /* a bare number means bytes or pieces, but never a time, except for 0 */
        return spec->type != OPTION_DURATION || *out == 0;
    if (spec->type == OPTION_INTEGER)
        return false;
    const struct unit *units = spec->type == OPTION_SIZE ? size_units : time_units;
    if (*unit == ' ')
        unit++;
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (strcmp(unit, units[i].name) == 0)
            return !__builtin_mul_overflow(*out, units[i].factor, out);
    }
    return false;
}

static bool in_range(const struct option_spec *spec, uint64_t number)
{
    return (number >= spec->min && number <= spec->max) || (number == 0 && spec->zero_allowed);
}

static void format_quantity(const struct option_spec *spec, uint64_t number, struct buffer *out)
{
    const struct unit *units = spec->type == OPTION_SIZE ? size_units : time_units;
    size_t i = 0;
    if (spec->type == OPTION_INTEGER || number == 0) {
        buffer_printf(out, "%" PRIu64, number);
        return;
    }
    while (number % units[i].factor != 0)
        i++;
    buffer_printf(out, "%" PRIu64 "%s", number / units[i].factor, units[i].name);
}

/* --- Addresses
 * ------------------------------------------------------------------------------------------------- */

static void address_set4(struct config_address *address, const char *host, uint16_t port, bool *ok)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
        return;
    char canonical[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &sin.sin_addr, canonical, sizeof canonical);
    snprintf(address->text, sizeof address->text, "%s:%u", canonical, port);
    memcpy(&address->sockaddr, &sin, sizeof sin);
    address->sockaddr_len = sizeof sin;
    address->port = port;
    *ok = true;
}

static void address_set6(struct config_address *address, const char *host, uint16_t port, bool *ok)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET6, host, &sin6.sin6_addr) != 1)
        return;
    char canonical[INET6_ADDRSTRLEN];
    inet_ntop(AF_INET6, &sin6.sin6_addr, canonical, sizeof canonical);
    snprintf(address->text, sizeof address->text, "[%s]:%u", canonical, port);
    memcpy(&address->sockaddr, &sin6, sizeof sin6);
    address->sockaddr_len = sizeof sin6;
    address->port = port;
    *ok = true;
}

bool config_address_parse(const char *text, bool off_allowed, struct config_address *address)
{
    *address = (struct config_address){0};
    if (off_allowed && strcmp(text, "off") == 0) {
        address->off = true;
        strcpy(address->text, "off");
        return true;
    }
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        return false;
    size_t len = (size_t)(colon - text);
    memcpy(host, text, len);
    host[len] = '\0';

    uint64_t port;
    const char *end = parse_digits(colon + 1, &port);
    if (end == NULL || *end != '\0' || port > UINT16_MAX)
        return false;
    bool ok = false;
    if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        address_set6(address, host + 1, (uint16_t)port, &ok);
    } else {
        address_set4(address, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, (uint16_t)port, &ok);
    }
    return ok;
}

/* --- Lists
 * ------------------------------------------------------------------------------------- */

static void list_clear(struct config_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mem_free(list->items[i]);
    mem_free(list->items);
    *list = (struct config_list){0};
}

bool option_is_path_prefix(const char *value)
{
    struct slice text = slice_text(value);
    if (text.len < 2 || text.len > PREFIX_LEN_MAX || text.data[0] != '/' || text.data[text.len - 1] == '/')
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (strchr("{}%?#\"", text.data[i]) != NULL || (text.data[i] == '/' && text.data[i + 1] == '/'))
            return false;
    }
    return true;
}

/* Items are separated by commas or spaces; one that is there already is not added again. */
static bool parse_list(const struct option_spec *spec, const char *text, struct config_list *list)
{
    list->items = mem_calloc(LIST_MAX, sizeof *list->items);
    if (list->items == NULL)
        return false;
    for (const char *p = text + strspn(text, ", \t"); *p != '\0'; p += strspn(p, ", \t")) {
        struct slice item = slice_from(p, strcspn(p, ", \t"));
        p += item.len;
        bool known = false;
        for (size_t i = 0; i < list->count; i++)
            known = known || slice_is(item, list->items[i]);
        if (known)
            continue;
        if (list->count == LIST_MAX)
            return false;
        list->items[list->count] = mem_strndup(item.data, item.len);
        if (list->items[list->count] == NULL || !spec->check(list->items[list->count++]))
            return false;
    }
    return true;
}

/* --- All types
 * ------------------------------------------------------------------------------------------------- */

static bool parse_bool(const char *text, bool *out)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static bool parse_enum(const struct option_spec *spec, const char *text, unsigned *out)
{
    for (unsigned i = 0; spec->names[i] != NULL; i++) {
        if (strcmp(text, spec->names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* What no file could hold, so that every configuration can be written down as one. */
static const char *check_text(const char *text)
{
    size_t len = strlen(text);
    if (!utf8_valid(text, len))
        return "must be UTF-8";
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return "must not hold control characters";
        if (text[i] == ';' && (i == 0 || text[i - 1] == ' '))
            return "must not hold a ; at its beginning or after a space, where a file's comments begin";
    }
    if (len > 0 && (text[0] == ' ' || text[len - 1] == ' '))
        return "must not begin or end with a space";
    return NULL;
}

static bool parse_string(const struct option_spec *spec, const char *text, char **out)
{
    if (spec->check != NULL && !spec->check(text))
        return false;
    *out = mem_strdup(text);
    return *out != NULL;
}

union value {
    bool boolean;
    unsigned choice;
    uint64_t number;
    char *string;
    struct config_address address;
    struct config_list list;
    struct config_redis redis;
};

static const size_t type_sizes[] = {
    [OPTION_BOOL] = sizeof(bool),
    [OPTION_INTEGER] = sizeof(uint64_t),
    [OPTION_SIZE] = sizeof(uint64_t),
    [OPTION_DURATION] = sizeof(uint64_t),
    [OPTION_ADDRESS] = sizeof(struct config_address),
    [OPTION_ENUM] = sizeof(unsigned),
    [OPTION_STRING] = sizeof(char *),
    [OPTION_LIST] = sizeof(struct config_list),
    [OPTION_REDIS] = sizeof(struct config_redis),
};

static bool parse_value(const struct option_spec *spec, const char *text, union value *value, char *problem,
                        size_t size)
{
    switch (spec->type) {
    case OPTION_BOOL:
        return parse_bool(text, &value->boolean);
    case OPTION_INTEGER:
    case OPTION_SIZE:
    case OPTION_DURATION:
        return parse_quantity(spec, text, &value->number) && in_range(spec, value->number);
    case OPTION_ADDRESS:
        return config_address_parse(text, spec->off_allowed, &value->address);
    case OPTION_ENUM:
        return parse_enum(spec, text, &value->choice);
    case OPTION_STRING:
        return parse_string(spec, text, &value->string);
    case OPTION_LIST:
        if (parse_list(spec, text, &value->list))
            return true;
        list_clear(&value->list);
        return false;
    case OPTION_REDIS:
        return config_redis_parse(text, &value->redis, problem, size);
    }
    return false;
}

bool option_parse(const struct option_spec *spec, const char *text, struct config *config, char *problem,
                  size_t size)
{
    union value value = {0};
    const char *reason = check_text(text);
    problem[0] = '\0';
    if (reason != NULL) {
        snprintf(problem, size, "%s", reason);
        return false;
    }
    if (!parse_value(spec, text, &value, problem, size)) {
        if (problem[0] == '\0') {
            struct buffer allowed;
            buffer_init(&allowed, 0);
            option_describe(spec, &allowed);
            const char *description = buffer_text(&allowed);
            snprintf(problem, size, "must be %s", description != NULL ? description : "something else");
            buffer_close(&allowed);
        }
        return false;
    }
    option_clear(spec, config);
    memcpy(field_of(spec, config), &value, type_sizes[spec->type]);
    return true;
}

void option_format(const struct option_spec *spec, const struct config *config, bool secrets,
                   struct buffer *out)
{
    union value value = {0};
    memcpy(&value, field_of(spec, config), type_sizes[spec->type]);
    switch (spec->type) {
    case OPTION_BOOL:
        buffer_append_text(out, value.boolean ? "yes" : "no");
        break;
    case OPTION_INTEGER:
    case OPTION_SIZE:
    case OPTION_DURATION:
        format_quantity(spec, value.number, out);
        break;
    case OPTION_ADDRESS:
        buffer_append_text(out, value.address.text);
        break;
    case OPTION_ENUM:
        buffer_append_text(out, spec->names[value.choice]);
        break;
    case OPTION_STRING:
        buffer_append_text(out, spec->secret && !secrets && value.string[0] != '\0' ? OPTION_REDACTED
                                                                                   : value.string);
        break;
    case OPTION_LIST:
        for (size_t i = 0; i < value.list.count; i++)
            buffer_printf(out, "%s%s", i > 0 ? ", " : "", value.list.items[i]);
        break;
    case OPTION_REDIS:
        config_redis_format(&value.redis, secrets, out);
        break;
    }
}

void option_clear(const struct option_spec *spec, struct config *config)
{
    void *field = field_of(spec, config);
    if (spec->type == OPTION_STRING)
        mem_free(*(char **)field);
    else if (spec->type == OPTION_LIST)
        list_clear(field);
    else if (spec->type == OPTION_REDIS)
        config_redis_clear(field);
    memset(field, 0, type_sizes[spec->type]);
}

static void describe_range(const struct option_spec *spec, const char *what, struct buffer *out)
{
    buffer_printf(out, "%s from ", what);
    format_quantity(spec, spec->min, out);
    buffer_append_text(out, " to ");
    format_quantity(spec, spec->max, out);
    if (spec->zero_allowed)
        buffer_append_text(out, ", or 0");
}

void option_describe(const struct option_spec *spec, struct buffer *out)
{
    switch (spec->type) {
    case OPTION_BOOL:
        buffer_append_text(out, "yes or no");
        break;
    case OPTION_INTEGER:
        describe_range(spec, "an integer", out);
        break;
    case OPTION_SIZE:
        describe_range(spec, "a size (bytes, KiB, MiB, GiB)", out);
        break;
    case OPTION_DURATION:
        describe_range(spec, "a time (ms, s, m, h)", out);
        break;
    case OPTION_ADDRESS:
        buffer_printf(out, "IPV4:PORT, [IPV6]:PORT%s with a port from 0 to 65535 (0: any free one)",
                      spec->off_allowed ? ", localhost:PORT or off," : " or localhost:PORT");
        break;
    case OPTION_ENUM:
        for (size_t i = 0; spec->names[i] != NULL; i++)
            buffer_printf(out, "%s%s",
                          i == 0                       ? ""
                          : spec->names[i + 1] != NULL ? ", "
                                                       : " or ",
                          spec->names[i]);
        break;
    case OPTION_STRING:
        buffer_append_text(out, spec->form != NULL ? spec->form : "text");
        break;
    case OPTION_LIST:
        buffer_printf(out, "up to %d %s, separated by commas", LIST_MAX, spec->form);
        break;
    case OPTION_REDIS:
        buffer_append_text(out, "a URL");
        break;
    }
}
