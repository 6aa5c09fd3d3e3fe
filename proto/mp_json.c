#include "proto/mp_json.h"

#include "base/alloc.h"
#include "base/utf8.h"
#include "proto/writer.h"

#include <math.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* ---- from JSON; as deep as jansson was allowed to parse ---- */

static int write_buffer(void *data, const char *bytes, size_t len)
{
    return buffer_append(data, bytes, len) ? 0 : -1;
}

static void pack(msgpack_packer *packer, const json_t *value)
{
    const json_t *item;
    const char *key;
    size_t i;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        msgpack_pack_map(packer, json_object_size(value));
        json_object_foreach((json_t *)(uintptr_t)value, key, item)
        {
            msgpack_pack_str_with_body(packer, key, strlen(key));
            pack(packer, item);
        }
        break;
    case JSON_ARRAY:
        msgpack_pack_array(packer, json_array_size(value));
        json_array_foreach(value, i, item) pack(packer, item);
        break;
    case JSON_STRING:
        msgpack_pack_str_with_body(packer, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        msgpack_pack_int64(packer, json_integer_value(value));
        break;
    case JSON_REAL:
        msgpack_pack_double(packer, json_real_value(value));
        break;
    case JSON_TRUE:
        msgpack_pack_true(packer);
        break;
    case JSON_FALSE:
        msgpack_pack_false(packer);
        break;
    case JSON_NULL:
        msgpack_pack_nil(packer);
        break;
    }
}

bool mp_from_json(const json_t *value, struct buffer *out)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, out, write_buffer);
    pack(&packer, value);
    return !out->failed;
}

/* ---- as JSON text ---- */

static void write_real(const json_t *real, struct buffer *out)
{
    char text[40] = "";

    for (size_t precision = 15; precision <= 17; precision++) {
        size_t len =
            json_dumpb(real, text, sizeof text - 1, JSON_ENCODE_ANY | JSON_REAL_PRECISION(precision));
        text[len < sizeof text ? len : 0] = '\0';
        if (strtod(text, NULL) == json_real_value(real))
            break;
    }
    buffer_append_text(out, text);
}

static void write_members(const json_t *object, struct buffer *out)
{
    const char *key;
    json_t *item;
    bool first = true;

    buffer_append_text(out, "{");
    json_object_foreach((json_t *)(uintptr_t)object, key, item)
    {
        if (!first)
            buffer_append_text(out, ",");
        first = false;
        json_write_string(out, slice_text(key));
        buffer_append_text(out, ":");
        if (!json_write_value(item, out))
            return;
    }
    buffer_append_text(out, "}");
}

static void write_items(const json_t *array, struct buffer *out)
{
    buffer_append_text(out, "[");
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i)
            buffer_append_text(out, ",");
        if (!json_write_value(json_array_get(array, i), out))
            return;
    }
    buffer_append_text(out, "]");
}

bool json_write_value(const json_t *value, struct buffer *out)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_members(value, out);
        break;
    case JSON_ARRAY:
        write_items(value, out);
        break;
    case JSON_STRING:
        json_write_string(out, slice_from(json_string_value(value), json_string_length(value)));
        break;
    case JSON_INTEGER:
        buffer_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        write_real(value, out);
        break;
    case JSON_TRUE:
        buffer_append_text(out, "true");
        break;
    case JSON_FALSE:
        buffer_append_text(out, "false");
        break;
    case JSON_NULL:
        buffer_append_text(out, "null");
        break;
    }
    return !out->failed;
}

/* ---- to JSON ---- */

static json_t *read_value(struct mp_reader *reader, unsigned depth);

static json_t *read_items(struct mp_reader *reader, uint32_t count, unsigned depth)
{
    json_t *array = json_array();

    for (uint32_t i = 0; array && i < count; i++) {
        if (json_array_append_new(array, read_value(reader, depth)) == 0)
            continue;
        json_decref(array);
        return NULL;
    }
    return array;
}

static json_t *read_pairs(struct mp_reader *reader, uint32_t count, unsigned depth)
{
    json_t *object = json_object();
    struct slice key;

    for (uint32_t i = 0; object && i < count; i++) {
        char *name = NULL;
        /* jansson's keys end at a NUL, so one inside can't be kept. */
        if (mp_read_str(reader, &key) && utf8_valid(key.data, key.len) && !memchr(key.data, 0, key.len))
            name = mem_strndup(key.data, key.len);
        int failed = name ? json_object_set_new(object, name, read_value(reader, depth)) : -1;
        mem_free(name);
        if (failed) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static json_t *read_scalar(struct mp_reader *reader)
{
    struct mp_reader again = *reader;
    unsigned char type = reader->at < reader->end ? *reader->at : 0xc1;
    struct slice text;
    int64_t integer;
    uint64_t number;
    double real;

    if (mp_read_str(reader, &text))
        return utf8_valid(text.data, text.len) ? json_stringn(text.data, text.len) : NULL;
    *reader = again;
    if (mp_read_uint(reader, &number))
        return number <= INT64_MAX ? json_integer((json_int_t)number) : NULL;
    *reader = again;
    if (mp_read_int(reader, &integer))
        return json_integer(integer);
    *reader = again;
    if (mp_read_float(reader, &real))
        return isfinite(real) ? json_real(real) : NULL;
    *reader = again;
    reader->at++;
    return type == 0xc0 ? json_null() : type == 0xc2 ? json_false() : type == 0xc3 ? json_true() : NULL;
}

static json_t *read_value(struct mp_reader *reader, unsigned depth)
{
    struct mp_reader again = *reader;
    uint32_t count;

    if (reader->at == reader->end || depth == MP_DEPTH_MAX)
        return NULL;
    if (mp_read_array(reader, &count))
        return read_items(reader, count, depth + 1);
    *reader = again;
    if (mp_read_map(reader, &count))
        return read_pairs(reader, count, depth + 1);
    *reader = again;
    return read_scalar(reader);
}

json_t *mp_to_json(struct mp_reader *reader)
{
    return read_value(reader, 0);
}
