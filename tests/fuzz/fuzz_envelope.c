/* Whatever comes over the bus is read or refused; what was read is written back and reads as the same. */
#include "base/utf8.h"
#include "fuzz.h"
#include "proto/address.h"
#include "proto/envelope.h"

#include <string.h>

static void require_same(const struct message_fields *a, const struct message_fields *b)
{
    fuzz_require(a->kind == b->kind && a->content == b->content && a->time_ms == b->time_ms);
    fuzz_require(slice_equal(a->id, b->id) && slice_equal(a->from, b->from) && slice_equal(a->to, b->to));
    fuzz_require(slice_equal(a->payload, b->payload) && slice_equal(a->correlation, b->correlation));
}

static void require_bounded(const struct message_fields *fields)
{
    fuzz_require((unsigned)fields->kind < MESSAGE_KIND_COUNT && (unsigned)fields->content < CONTENT_COUNT);
    fuzz_require(fields->id.len <= MESSAGE_ID_MAX && fields->correlation.len <= CORRELATION_MAX);
    fuzz_require(fields->from.len <= ADDRESS_MAX && fields->to.len <= ADDRESS_MAX);
    fuzz_require(utf8_valid(fields->id.data, fields->id.len));
    fuzz_require(utf8_valid(fields->from.data, fields->from.len));
    fuzz_require(utf8_valid(fields->to.data, fields->to.len));
    fuzz_require(utf8_valid(fields->correlation.data, fields->correlation.len));
    if (fields->content != CONTENT_BINARY)
        fuzz_require(utf8_valid(fields->payload.data, fields->payload.len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message_fields fields, again;
    struct envelope_mark mark = {.origin = size, .number = 1}, read;
    struct buffer buffer, marked;

    bool has_mark = envelope_read_mark(slice_from(data, size), &read);
    enum message_kind kind = envelope_kind(slice_from(data, size));
    if (envelope_decode(slice_from(data, size), &fields) != NULL)
        return 0;
    require_bounded(&fields);
    buffer_init(&buffer, 0);
    fuzz_require(envelope_encode(&fields, &buffer));
    fuzz_require(envelope_decode(slice_from(buffer.data, buffer.len), &again) == NULL);
    require_same(&fields, &again);
    fuzz_require(kind == fields.kind);
    buffer_init(&marked, 0);
    if (envelope_mark(slice_from(data, size), &mark, &marked)) {
        fuzz_require(!has_mark && envelope_read_mark(slice_from(marked.data, marked.len), &read));
        fuzz_require(read.origin == size && read.number == 1 && !read.copy);
        fuzz_require(envelope_decode(slice_from(marked.data, marked.len), &again) == NULL);
        require_same(&fields, &again);
    }
    buffer_close(&marked);
    buffer_close(&buffer);
    return 0;
}
