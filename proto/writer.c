#include "proto/writer.h"

#include "base/utf8.h"
#include "proto/base64.h"
#include "proto/mp_json.h"

#include <inttypes.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <string.h>

static int write_buffer(void *data, const char *bytes, size_t len)
{
    return buffer_append(data, bytes, len) ? 0 : -1;
}

static msgpack_packer packer_of(struct writer *writer)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, writer->out, write_buffer);
    return packer;
}

static void put(struct writer *writer, const char *text)
{
    buffer_append_text(writer->out, text);
}

/* A comma goes before each key of a map and before each element of an array, except the first. */
static void separate(struct writer *writer)
{
    if (!writer->fresh)
        put(writer, ",");
    writer->fresh = false;
}

static void before_value(struct writer *writer)
{
    if (writer->face == FACE_JSON && writer->depth && writer->arrays[writer->depth - 1])
        separate(writer);
}

void writer_begin(struct writer *writer, enum face face, struct buffer *out)
{
    *writer = (struct writer){.out = out, .face = face, .fresh = true};
}

static void open_level(struct writer *writer, bool array, size_t count)
{
    before_value(writer);
    writer->arrays[writer->depth++] = array;
    writer->fresh = true;
    if (writer->face == FACE_JSON) {
        put(writer, array ? "[" : "{");
        return;
    }
    msgpack_packer packer = packer_of(writer);
    if (array)
        msgpack_pack_array(&packer, count);
    else
        msgpack_pack_map(&packer, count);
}

void writer_map(struct writer *writer, size_t count)
{
    open_level(writer, false, count);
}

void writer_array(struct writer *writer, size_t count)
{
    open_level(writer, true, count);
}

size_t writer_array_begin(struct writer *writer)
{
    static const char unknown[] = {(char)0xdd, 0, 0, 0, 0}; /* an array of 32 bits' length */

    if (writer->face == FACE_JSON) {
        writer_array(writer, 0);
        return 0;
    }
    writer->arrays[writer->depth++] = true;
    buffer_append(writer->out, unknown, sizeof unknown);
    return writer->out->len;
}

void writer_array_end(struct writer *writer, size_t begun, size_t count)
{
    if (writer->face == FACE_MSGPACK && !writer->out->failed)
        for (unsigned i = 1; i <= 4; i++)
            writer->out->data[begun - i] = (char)(count >> (8 * (i - 1)) & 0xff);
    writer_end(writer);
}

struct writer_mark writer_mark(const struct writer *writer)
{
    return (struct writer_mark){.len = writer->out->len, .fresh = writer->fresh};
}

void writer_rewind(struct writer *writer, struct writer_mark mark)
{
    writer->out->len = mark.len;
    writer->fresh = mark.fresh;
}

void writer_end(struct writer *writer)
{
    bool array = writer->arrays[--writer->depth];

    writer->fresh = false;
    if (writer->face == FACE_JSON)
        put(writer, array ? "]" : "}");
}

void writer_key(struct writer *writer, const char *key)
{
    if (writer->face == FACE_JSON) {
        separate(writer);
        put(writer, "\"");
        put(writer, key);
        put(writer, "\":");
        return;
    }
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_str_with_body(&packer, key, strlen(key));
}

/* RFC 8259 section 7: quotation mark, backslash and control characters are escaped. */
void json_write_string(struct buffer *out, struct slice text)
{
    static const char shorts[] = "btn?fr"; /* \b to \r; \v has none */
    size_t start = 0;

    buffer_append(out, "\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        char escape[8];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buffer_append(out, text.data + start, i - start);
        start = i + 1;
        if (c == '"' || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", c);
        else if (c >= '\b' && c <= '\r' && c != '\v')
            snprintf(escape, sizeof escape, "\\%c", shorts[c - '\b']);
        else
            snprintf(escape, sizeof escape, "\\u%04x", c);
        buffer_append_text(out, escape);
    }
    if (start < text.len)
        buffer_append(out, text.data + start, text.len - start);
    buffer_append(out, "\"", 1);
}

static void write_str(struct writer *writer, struct slice text)
{
    if (writer->face == FACE_JSON) {
        json_write_string(writer->out, text);
        return;
    }
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_str(&packer, text.len);
    msgpack_pack_str_body(&packer, text.data, text.len);
}

/* What somebody wrote to the storage by hand may be no UTF-8; a frame that isn't would end the client's connection. */
static void write_repaired(struct writer *writer, struct slice text)
{
    struct buffer repaired;

    buffer_init(&repaired, 0);
    for (size_t i = 0; i < text.len;) {
        size_t step = utf8_step(text.data + i, text.len - i);
        buffer_append(&repaired, step ? text.data + i : "\xef\xbf\xbd", step ? step : 3);
        i += step ? step : 1;
    }
    if (repaired.failed)
        writer->out->failed = true;
    else
        write_str(writer, slice_from(repaired.data, repaired.len));
    buffer_close(&repaired);
}

void writer_str(struct writer *writer, struct slice text)
{
    before_value(writer);
    if (utf8_valid(text.data, text.len))
        write_str(writer, text);
    else
        write_repaired(writer, text);
}

void writer_int(struct writer *writer, int64_t value)
{
    before_value(writer);
    if (writer->face == FACE_JSON) {
        char number[24];
        snprintf(number, sizeof number, "%" PRId64, value);
        put(writer, number);
        return;
    }
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_int64(&packer, value);
}

void writer_bool(struct writer *writer, bool value)
{
    before_value(writer);
    if (writer->face == FACE_JSON) {
        put(writer, value ? "true" : "false");
        return;
    }
    msgpack_packer packer = packer_of(writer);
    if (value)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_false(&packer);
}

static void write_binary(struct writer *writer, struct slice payload)
{
    if (writer->face == FACE_JSON) {
        put(writer, "\"");
        base64_encode(payload, writer->out);
        put(writer, "\"");
        return;
    }
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_bin(&packer, payload.len);
    msgpack_pack_bin_body(&packer, payload.data, payload.len);
}

void writer_payload(struct writer *writer, enum message_content content, struct slice payload)
{
    json_t *value = NULL;

    if (content == CONTENT_JSON)
        value =
            json_loadb(payload.data ? payload.data : "", payload.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (content == CONTENT_BINARY) {
        writer_key(writer, "binary");
        write_binary(writer, payload);
    } else if (!value) {
        writer_pair_str(writer, "text", payload);
    } else {
        writer_key(writer, "data");
        if (writer->face == FACE_JSON)
            buffer_append(writer->out, payload.data, payload.len);
        else if (!mp_from_json(value, writer->out))
            writer->out->failed = true;
    }
    json_decref(value);
}

void writer_pair_str(struct writer *writer, const char *key, struct slice text)
{
    writer_key(writer, key);
    writer_str(writer, text);
}

void writer_pair_int(struct writer *writer, const char *key, int64_t value)
{
    writer_key(writer, key);
    writer_int(writer, value);
}

void writer_pair_bool(struct writer *writer, const char *key, bool value)
{
    writer_key(writer, key);
    writer_bool(writer, value);
}

void writer_pair_null(struct writer *writer, const char *key)
{
    writer_key(writer, key);
    before_value(writer);
    if (writer->face == FACE_JSON) {
        put(writer, "null");
        return;
    }
    msgpack_packer packer = packer_of(writer);
    msgpack_pack_nil(&packer);
}
