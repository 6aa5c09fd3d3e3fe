#include "proto/envelope.h"

#include "base/utf8.h"
#include "proto/address.h"
#include "proto/mp.h"

#include <msgpack.h>

enum { FIELD_COUNT = 9, WITH_EPOCH = 11, WITH_TIMEOUT = 12, WITH_MARK = 13 };

/* A mark: bin of 13 bytes, origin and number with the highest byte first, and 1 for a copy. */
enum { BIN_8 = 0xc4, MARK_LEN = 8 + 4 + 1, MARK_SIZE = 2 + MARK_LEN };

static int write_buffer(void *data, const char *bytes, size_t len)
{
    return buffer_append(data, bytes, len) ? 0 : -1;
}

static void pack_str(msgpack_packer *packer, struct slice text)
{
    msgpack_pack_str(packer, text.len);
    msgpack_pack_str_body(packer, text.data, text.len);
}

/* Appends an array header that announces `count` elements, and the first nine of them. */
static void pack_fields(msgpack_packer *packer, const struct message_fields *fields, size_t count)
{
    msgpack_pack_array(packer, count);
    msgpack_pack_uint8(packer, ENVELOPE_VERSION);
    pack_str(packer, fields->id);
    msgpack_pack_uint8(packer, (uint8_t)fields->kind);
    pack_str(packer, fields->from);
    pack_str(packer, fields->to);
    msgpack_pack_uint64(packer, fields->time_ms);
    msgpack_pack_uint8(packer, (uint8_t)fields->content);
    msgpack_pack_bin(packer, fields->payload.len);
    msgpack_pack_bin_body(packer, fields->payload.data, fields->payload.len);
    pack_str(packer, fields->correlation);
}

static bool encode(const struct message_fields *fields, size_t count, bool open, struct buffer *out)
{
    enum { OVERHEAD = 96 }; /* more than all type and length bytes together */
    size_t start = out->len;
    msgpack_packer packer;

    if (!buffer_reserve(out, OVERHEAD + fields->id.len + fields->from.len + fields->to.len +
                                 fields->payload.len + fields->correlation.len + fields->offset.len +
                                 fields->epoch.len))
        return false;
    msgpack_packer_init(&packer, out, write_buffer);
    pack_fields(&packer, fields, count);
    if (!open && count >= WITH_EPOCH) {
        pack_str(&packer, fields->offset);
        pack_str(&packer, fields->epoch);
    }
    if (count >= WITH_TIMEOUT)
        msgpack_pack_uint64(&packer, fields->timeout_ms);
    if (!out->failed)
        return true;
    out->len = start;
    return false;
}

bool envelope_encode(const struct message_fields *fields, struct buffer *out)
{
    size_t count = fields->timeout_ms ? WITH_TIMEOUT : fields->offset.len ? WITH_EPOCH : FIELD_COUNT;

    return encode(fields, count, false, out);
}

bool envelope_encode_open(const struct message_fields *fields, struct buffer *out)
{
    return encode(fields, WITH_EPOCH, true, out);
}

static bool is_envelope(struct slice bytes)
{
    return bytes.len && ((unsigned char)bytes.data[0] & 0xf0) == 0x90;
}

static bool read_text(struct mp_reader *reader, size_t max, struct slice *value)
{
    return mp_read_str(reader, value) && value->len <= max && utf8_valid(value->data, value->len);
}

static const char *read_fields(struct mp_reader *reader, struct message_fields *fields)
{
    uint64_t kind, content;

    if (!read_text(reader, MESSAGE_ID_MAX, &fields->id))
        return "envelope: bad id";
    if (!mp_read_uint(reader, &kind) || kind >= MESSAGE_KIND_COUNT)
        return "envelope: bad kind";
    if (!read_text(reader, ADDRESS_MAX, &fields->from))
        return "envelope: bad from";
    if (!read_text(reader, ADDRESS_MAX, &fields->to))
        return "envelope: bad to";
    if (!mp_read_uint(reader, &fields->time_ms))
        return "envelope: bad time";
    if (!mp_read_uint(reader, &content) || content >= CONTENT_COUNT)
        return "envelope: bad content type";
    if (!mp_read_bin(reader, &fields->payload))
        return "envelope: bad payload";
    if (!read_text(reader, CORRELATION_MAX, &fields->correlation))
        return "envelope: bad correlation";
    fields->kind = (enum message_kind)kind;
    fields->content = (enum message_content)content;
    if (fields->content != CONTENT_BINARY && !utf8_valid(fields->payload.data, fields->payload.len))
        return "envelope: the payload is not valid UTF-8";
    return NULL;
}

static const char *read_optional(struct mp_reader *reader, uint32_t count, struct message_fields *fields)
{
    if (count > FIELD_COUNT && !read_text(reader, OFFSET_MAX, &fields->offset))
        return "envelope: bad offset";
    if (count >= WITH_EPOCH && !read_text(reader, EPOCH_MAX, &fields->epoch))
        return "envelope: bad epoch";
    if (count >= WITH_TIMEOUT && !mp_read_uint(reader, &fields->timeout_ms))
        return "envelope: bad timeout";
    return NULL;
}

const char *envelope_decode(struct slice bytes, struct message_fields *fields)
{
    const unsigned char *start = (const unsigned char *)bytes.data;
    struct mp_reader reader = {.at = start, .end = start + bytes.len};
    uint32_t count;
    uint64_t version;

    *fields = (struct message_fields){.kind = MESSAGE_DATA};
    if (!is_envelope(bytes)) {
        fields->content = utf8_valid(bytes.data, bytes.len) ? CONTENT_TEXT : CONTENT_BINARY;
        fields->payload = bytes;
        return NULL;
    }
    if (!mp_read_array(&reader, &count) || count < FIELD_COUNT)
        return "envelope: too few elements";
    if (!mp_read_uint(&reader, &version) || version < ENVELOPE_VERSION)
        return "envelope: bad version";
    const char *wrong = read_fields(&reader, fields);
    if (wrong)
        return wrong;
    wrong = read_optional(&reader, count, fields);
    if (wrong)
        return wrong;
    for (uint32_t i = WITH_TIMEOUT; i < count; i++)
        if (!mp_skip(&reader))
            return "envelope: cut short";
    return reader.at == reader.end ? NULL : "envelope: bytes after its end";
}

/* ---- marks ---- */

static void put_number(unsigned char *at, uint64_t number, size_t width)
{
    for (size_t i = 0; i < width; i++)
        at[i] = (unsigned char)(number >> 8 * (width - 1 - i));
}

static uint64_t get_number(const unsigned char *at, size_t width)
{
    uint64_t number = 0;

    for (size_t i = 0; i < width; i++)
        number = number << 8 | at[i];
    return number;
}

bool envelope_mark(struct slice bytes, const struct envelope_mark *mark, struct buffer *out)
{
    static const unsigned char head = 0x90 | WITH_MARK;
    static const char missing[] = "\xa0\xa0"; /* offset and epoch, and behind them the NUL: no timeout */
    unsigned count = is_envelope(bytes) ? (unsigned char)bytes.data[0] & 0x0f : 0;
    unsigned char tail[MARK_SIZE] = {BIN_8, MARK_LEN};

    if (count != FIELD_COUNT && count != WITH_EPOCH && count != WITH_TIMEOUT)
        return false;
    put_number(tail + 2, mark->origin, 8);
    put_number(tail + 10, mark->number, 4);
    tail[14] = mark->copy;
    size_t given = count - FIELD_COUNT;
    return buffer_reserve(out, bytes.len + sizeof missing + sizeof tail) && buffer_append(out, &head, 1) &&
           buffer_append(out, bytes.data + 1, bytes.len - 1) &&
           buffer_append(out, missing + given, sizeof missing - given) &&
           buffer_append(out, tail, sizeof tail);
}

bool envelope_read_mark(struct slice bytes, struct envelope_mark *mark)
{
    if (bytes.len <= MARK_SIZE || (unsigned char)bytes.data[0] != (0x90 | WITH_MARK))
        return false;
    const unsigned char *tail = (const unsigned char *)bytes.data + bytes.len - MARK_SIZE;
    if (tail[0] != BIN_8 || tail[1] != MARK_LEN)
        return false;
    *mark = (struct envelope_mark){
        .origin = get_number(tail + 2, 8), .number = (uint32_t)get_number(tail + 10, 4), .copy = tail[14] & 1};
    return true;
}

enum message_kind envelope_kind(struct slice bytes)
{
    const unsigned char *start = (const unsigned char *)bytes.data;
    struct mp_reader reader = {.at = start, .end = start + bytes.len};
    uint64_t version, kind;
    struct slice id;
    uint32_t count;

    if (!is_envelope(bytes))
        return MESSAGE_DATA;
    return mp_read_array(&reader, &count) && mp_read_uint(&reader, &version) && mp_read_str(&reader, &id) &&
                   mp_read_uint(&reader, &kind) && kind < MESSAGE_KIND_COUNT
               ? (enum message_kind)kind
               : MESSAGE_KIND_COUNT;
}
