#include "proto/command.h"

#include "base/utf8.h"
#include "proto/base64.h"
#include "proto/mp.h"
#include "proto/mp_json.h"
#include "proto/payload.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_MAX_BITS = 53 };

enum field_type { TYPE_ID, TYPE_STR, TYPE_INT, TYPE_BOOL, TYPE_SINCE, TYPE_TEXT, TYPE_BINARY, TYPE_DATA };

struct field {
    const char *name;
    enum command_field bit;
    enum field_type type;
    size_t offset; /* of the member for str, int and bool */
};

#define MEMBER(name) offsetof(struct command, name)

static const struct field fields[] = {
    {"id", FIELD_ID, TYPE_ID, 0},
    {"cmd", FIELD_CMD, TYPE_STR, MEMBER(cmd)},
    {"to", FIELD_TO, TYPE_STR, MEMBER(to)},
    {"topic", FIELD_TOPIC, TYPE_STR, MEMBER(topic)},
    {"address", FIELD_ADDRESS, TYPE_STR, MEMBER(address)},
    {"request", FIELD_REQUEST, TYPE_STR, MEMBER(request)},
    {"refuse", FIELD_REFUSE, TYPE_STR, MEMBER(refuse)},
    {"key", FIELD_KEY, TYPE_STR, MEMBER(key)},
    {"store", FIELD_STORE, TYPE_BOOL, MEMBER(store)},
    {"ttl", FIELD_TTL, TYPE_INT, MEMBER(ttl)},
    {"timeout", FIELD_TIMEOUT, TYPE_INT, MEMBER(timeout)},
    {"limit", FIELD_LIMIT, TYPE_INT, MEMBER(limit)},
    {"reverse", FIELD_REVERSE, TYPE_BOOL, MEMBER(reverse)},
    {"presence", FIELD_PRESENCE, TYPE_BOOL, MEMBER(presence)},
    {"events", FIELD_EVENTS, TYPE_BOOL, MEMBER(events)},
    {"since", FIELD_SINCE, TYPE_SINCE, 0},
    {"text", FIELD_PAYLOAD, TYPE_TEXT, 0},
    {"binary", FIELD_PAYLOAD, TYPE_BINARY, 0},
    {"data", FIELD_PAYLOAD, TYPE_DATA, 0},
};

static const char *const type_texts[] = {
    [TYPE_ID] = "an integer from 0 to 2^53-1",
    [TYPE_STR] = "a string",
    [TYPE_INT] = "an integer",
    [TYPE_BOOL] = "true or false",
    [TYPE_SINCE] = "an offset, or an object with epoch and offset",
    [TYPE_TEXT] = "a string",
    [TYPE_BINARY] = "base64 in JSON, bin in MessagePack",
    [TYPE_DATA] = "a value that JSON has",
};

static const struct field *find_field(struct slice name)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (slice_is(name, fields[i].name))
            return &fields[i];
    return NULL;
}

static void *member(struct command *command, const struct field *field)
{
    return (char *)command + field->offset;
}

static bool set_id(struct command *command, int64_t id)
{
    if (id < 0 || id >= (int64_t)1 << ID_MAX_BITS)
        return false;
    command->id = id;
    return true;
}

static void set_payload(struct command *command, enum message_content content, struct slice payload)
{
    command->content = content;
    command->payload = payload;
}

/* Remembers the first thing wrong in a frame; reading goes on, since the id may still come. */
static void complain(struct command_reader *reader, const char *name, const char *what)
{
    if (!reader->problem[0])
        snprintf(reader->problem, sizeof reader->problem, "\"%s\" %s", name, what);
}

static void note_field(struct command_reader *reader, struct command *command, const struct field *field,
                       bool fits)
{
    char what[80];

    if (!fits) {
        snprintf(what, sizeof what, "must be %s", type_texts[field->type]);
        complain(reader, field->name, what);
    } else if (field->bit == FIELD_PAYLOAD && command->present & FIELD_PAYLOAD) {
        complain(reader, field->name, "is one payload too many: give text, binary or data");
    }
    command->present |= field->bit;
}

/* ---- JSON ---- */

static struct slice json_slice(const json_t *value)
{
    return slice_from(json_string_value(value), json_string_length(value));
}

static bool set_json_since(struct command *command, const json_t *value)
{
    if (json_is_string(value)) {
        command->since_offset = json_slice(value);
        return true;
    }
    const json_t *epoch = json_object_get(value, "epoch");
    const json_t *offset = json_object_get(value, "offset");
    if (!json_is_object(value) || (epoch && !json_is_string(epoch)) || (offset && !json_is_string(offset)))
        return false;
    command->since_epoch = json_slice(epoch);
    command->since_offset = json_slice(offset);
    return true;
}

static bool set_dumped_data(struct command_reader *reader, struct command *command, const json_t *value)
{
    reader->text.limit = reader->limit;
    bool kept = json_write_value(value, &reader->text);
    reader->text.limit = 0;
    set_payload(command, CONTENT_JSON, slice_from(reader->text.data, reader->text.len));
    /* Short of memory it wouldn't fit either. */
    command->too_large = !kept && reader->limit;
    return kept || command->too_large;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool ends_scalar(char c)
{
    return is_space(c) || c == ',' || c == ':' || c == ']' || c == '}';
}

/* Steps over one JSON value that is known to be valid. */
static const char *skip_json(const char *at)
{
    unsigned depth = 0;

    do {
        if (*at == '"') {
            for (at++; *at != '"'; at++)
                at += *at == '\\';
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            depth--;
        }
        at++;
    } while (depth || !ends_scalar(*at));
    return at;
}

static const char *skip_space(const char *at)
{
    while (is_space(*at))
        at++;
    return at;
}

/* The text of a member of the frame read last, as the client wrote it; {NULL, 0} when its key was written with escapes. */
static struct slice json_member(const struct command_reader *reader, const char *quoted_key)
{
    size_t key_len = strlen(quoted_key);

    for (const char *at = skip_space(reader->frame + 1); *at == '"';) {
        const char *key = at, *value = skip_space(skip_space(skip_json(at)) + 1);
        at = skip_json(value);
        if (strncmp(key, quoted_key, key_len) == 0)
            return slice_from(value, (size_t)(at - value));
        at = skip_space(at);
        at = skip_space(at + (*at == ','));
    }
    return slice_from(NULL, 0);
}

/* Keeps the value as the client wrote it, less the space between tokens: 1.10 stays 1.10. */
static bool set_json_data(struct command_reader *reader, struct command *command, const json_t *value)
{
    struct slice text = json_member(reader, "\"data\"");
    bool quoted = false;

    if (!text.data)
        return set_dumped_data(reader, command, value);
    if (!buffer_reserve(&reader->text, text.len))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        if (!quoted && is_space(c))
            continue;
        reader->text.data[reader->text.len++] = c;
        if (c == '"')
            quoted = !quoted;
        else if (quoted && c == '\\')
            reader->text.data[reader->text.len++] = text.data[++i];
    }
    set_payload(command, CONTENT_JSON, slice_from(reader->text.data, reader->text.len));
    return true;
}

static bool set_json(struct command_reader *reader, struct command *command, const struct field *field,
                     const json_t *value)
{
    switch (field->type) {
    case TYPE_ID:
        return json_is_integer(value) && set_id(command, json_integer_value(value));
    case TYPE_STR:
        *(struct slice *)member(command, field) = json_slice(value);
        return json_is_string(value);
    case TYPE_INT:
        *(int64_t *)member(command, field) = json_integer_value(value);
        return json_is_integer(value);
    case TYPE_BOOL:
        *(bool *)member(command, field) = json_is_true(value);
        return json_is_boolean(value);
    case TYPE_SINCE:
        return set_json_since(command, value);
    case TYPE_TEXT:
        set_payload(command, CONTENT_TEXT, json_slice(value));
        return json_is_string(value);
    case TYPE_BINARY:
        if (!json_is_string(value) || !base64_decode(json_slice(value), &reader->text))
            return false;
        set_payload(command, CONTENT_BINARY, slice_from(reader->text.data, reader->text.len));
        return true;
    case TYPE_DATA:
        return set_json_data(reader, command, value);
    }
    return false;
}

/* False when the frame at reader->at is nested too deeply; jansson's own limit is far above ours. `end`: where it ends by its
 * brackets, NULL when it doesn't. */
static bool is_shallow(const struct command_reader *reader, const char **end)
{
    unsigned depth = 0;
    bool quoted = false;

    *end = NULL;
    for (const char *c = reader->at; c < reader->end; c++) {
        if (quoted) {
            if (*c == '\\')
                c++;
            else if (*c == '"')
                quoted = false;
        } else if (*c == '"') {
            quoted = true;
        } else if (*c == '{' || *c == '[') {
            if (++depth > MP_DEPTH_MAX)
                return false;
        } else if ((*c == '}' || *c == ']') && (depth == 0 || --depth == 0)) {
            *end = *c == '}' ? c + 1 : NULL;
            return true;
        }
    }
    return true;
}

/* The number that stands behind a key; 0 when that is no id. */
static int64_t id_behind(const char *at, const char *end)
{
    int64_t id = 0;

    while (at < end && (is_space(*at) || *at == ':'))
        at++;
    for (; at < end && *at >= '0' && *at <= '9' && id >> ID_MAX_BITS == 0; at++)
        id = 10 * id + (*at - '0');
    return at < end && (is_space(*at) || *at == ',' || *at == '}') ? id : 0;
}

/* The id of an object that jansson can't hold, found by its tokens; 0: none. The object's brackets and quotes match up. */
static int64_t find_id(const char *at, const char *end)
{
    static const char key[] = "\"id\"";
    unsigned depth = 0;

    while (at < end) {
        const char *start = at;
        depth += *at == '{' || *at == '[';
        depth -= *at == '}' || *at == ']';
        if (*at++ != '"')
            continue;
        for (; *at != '"'; at++)
            at += *at == '\\';
        at++;
        if (depth == 1 && (size_t)(at - start) == sizeof key - 1 && memcmp(start, key, sizeof key - 1) == 0 &&
            *skip_space(at) == ':')
            return id_behind(at, end);
    }
    return 0;
}

/* An object by RFC 8259, but with a number out of range, a NUL in a key or a key given twice. */
static bool goes_too_far(const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);

    return code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
           code == json_error_duplicate_key;
}

/* What jansson says quotes the frame, and may be cut in the middle of a character. */
static void complain_json(struct command_reader *reader, const char *what, const char *text)
{
    size_t len;

    snprintf(reader->problem, sizeof reader->problem, "%.20s%.95s", what, text);
    len = strlen(reader->problem);
    while (!utf8_valid(reader->problem, len))
        len--;
    reader->problem[len] = '\0';
}

static enum command_status read_json(struct command_reader *reader, struct command *command)
{
    json_error_t error;
    json_t *value;
    const char *key, *end;

    while (reader->at < reader->end && is_space(*reader->at))
        reader->at++;
    if (reader->at == reader->end)
        return COMMAND_END;
    if (!is_shallow(reader, &end)) {
        snprintf(reader->problem, sizeof reader->problem, "the frame is nested deeper than %d levels",
                 MP_DEPTH_MAX);
        return COMMAND_FATAL;
    }
    json_t *tree = json_loadb(reader->at, (size_t)(reader->end - reader->at),
                              JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    reader->tree = tree;
    if (!tree && end && goes_too_far(&error)) {
        set_id(command, find_id(reader->at, end));
        complain_json(reader, "", error.text);
        reader->at = end;
        return COMMAND_READ;
    }
    if (!json_is_object(tree)) {
        complain_json(reader, "not a JSON object: ", tree ? "the frame is another value" : error.text);
        return COMMAND_FATAL;
    }
    reader->frame = reader->at;
    reader->at += error.position;
    json_object_foreach(tree, key, value)
    {
        const struct field *field = find_field(slice_text(key));
        if (field)
            note_field(reader, command, field, set_json(reader, command, field, value));
    }
    return COMMAND_READ;
}

/* ---- MessagePack ---- */

static bool set_mp_since(struct command *command, struct mp_reader *in)
{
    struct mp_reader again = *in;
    struct slice key;
    uint32_t count;

    if (mp_read_str(in, &command->since_offset))
        return utf8_valid(command->since_offset.data, command->since_offset.len);
    *in = again;
    if (!mp_read_map(in, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!mp_read_str(in, &key))
            return false;
        struct slice *value = slice_is(key, "epoch")    ? &command->since_epoch
                              : slice_is(key, "offset") ? &command->since_offset
                                                        : NULL;
        if (value ? !mp_read_str(in, value) || !utf8_valid(value->data, value->len) : !mp_skip(in))
            return false;
    }
    return true;
}

static bool set_mp_data(struct command_reader *reader, struct command *command, struct mp_reader *in)
{
    json_t *value = mp_to_json(in);
    bool kept = value && set_dumped_data(reader, command, value);

    json_decref(value);
    return kept;
}

static bool read_mp_text(struct mp_reader *in, struct slice *text)
{
    return mp_read_str(in, text) && utf8_valid(text->data, text->len);
}

static bool set_mp(struct command_reader *reader, struct command *command, const struct field *field,
                   struct mp_reader *in)
{
    struct slice bytes = slice_from(NULL, 0);
    int64_t id;

    switch (field->type) {
    case TYPE_ID:
        return mp_read_int(in, &id) && set_id(command, id);
    case TYPE_STR:
        return read_mp_text(in, member(command, field));
    case TYPE_INT:
        return mp_read_int(in, member(command, field));
    case TYPE_BOOL:
        return mp_read_bool(in, member(command, field));
    case TYPE_SINCE:
        return set_mp_since(command, in);
    case TYPE_TEXT:
        if (!read_mp_text(in, &bytes))
            return false;
        set_payload(command, CONTENT_TEXT, bytes);
        return true;
    case TYPE_BINARY:
        if (!mp_read_bin_only(in, &bytes))
            return false;
        set_payload(command, CONTENT_BINARY, bytes);
        return true;
    case TYPE_DATA:
        return set_mp_data(reader, command, in);
    }
    return false;
}

static enum command_status read_mp(struct command_reader *reader, struct command *command)
{
    struct mp_reader in = {.at = (const unsigned char *)reader->at,
                           .end = (const unsigned char *)reader->end};
    struct mp_reader whole = in;
    struct slice key;
    uint32_t count;

    if (in.at == in.end)
        return COMMAND_END;
    /* The whole frame is stepped over first, so that what follows can't run past its end. */
    if (!mp_skip(&whole) || !mp_read_map(&in, &count)) {
        snprintf(reader->problem, sizeof reader->problem,
                 "not a MessagePack map, cut short, or nested too deeply");
        return COMMAND_FATAL;
    }
    in.end = whole.at;
    reader->at = (const char *)whole.at;
    for (uint32_t i = 0; i < count; i++) {
        struct mp_reader value;
        bool named = mp_read_str(&in, &key);
        const struct field *field = named ? find_field(key) : NULL;
        if (!named) {
            snprintf(reader->problem, sizeof reader->problem, "a key is not a string");
            return COMMAND_FATAL;
        }
        value = in;
        if (!mp_skip(&in))
            return COMMAND_FATAL;
        if (field)
            note_field(reader, command, field, set_mp(reader, command, field, &value));
    }
    return COMMAND_READ;
}

/* ---- both ---- */

void command_reader_init(struct command_reader *reader, enum face face, struct slice bytes)
{
    *reader = (struct command_reader){.face = face, .at = bytes.data, .end = bytes.data + bytes.len};
    if (!bytes.data)
        reader->at = reader->end = "";
    buffer_init(&reader->text, 0);
}

static void forget_frame(struct command_reader *reader)
{
    json_decref(reader->tree);
    reader->tree = NULL;
    buffer_clear(&reader->text);
    reader->problem[0] = '\0';
}

void command_reader_close(struct command_reader *reader)
{
    forget_frame(reader);
    buffer_close(&reader->text);
}

enum command_status command_read(struct command_reader *reader, struct command *command)
{
    forget_frame(reader);
    *command = (struct command){.content = CONTENT_TEXT};
    enum command_status status =
        reader->face == FACE_JSON ? read_json(reader, command) : read_mp(reader, command);
    if (status != COMMAND_READ)
        return status;
    if (!(command->present & FIELD_CMD))
        complain(reader, "cmd", "is missing");
    if (reader->limit && !command->too_large)
        command->too_large = !payload_fits(command->content, command->payload, reader->limit) ||
                             !payload_fits(CONTENT_TEXT, command->refuse, reader->limit);
    return reader->problem[0] ? COMMAND_BAD : COMMAND_READ;
}
