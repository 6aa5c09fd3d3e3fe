#include "proto/envelope.h"

#include "base/utf8.h"
#include "proto/address.h"
#include "proto/mp.h"

#include <msgpack.h>

enum { FIELD_COUNT = 9, WITH_EPOCH = 11, WITH_TIMEOUT = 12 };

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
