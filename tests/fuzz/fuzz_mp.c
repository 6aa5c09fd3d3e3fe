/* What the reader steps over, msgpack-c unpacks, and from there to the same place. */
#include "fuzz.h"
#include "proto/mp.h"

#include <msgpack.h>

enum { UNPACK_MAX = 4096 }; /* the unpacker reserves memory by claims; these stay small */

static struct mp_reader reader_of(const uint8_t *data, size_t size)
{
    return (struct mp_reader){.at = data, .end = data + size};
}

static void require_inside(const struct mp_reader *reader, const uint8_t *data, size_t size)
{
    fuzz_require(reader->at >= data && reader->at <= data + size && reader->end == data + size);
}

static void require_slice_inside(struct slice value, const struct mp_reader *reader, const uint8_t *data)
{
    fuzz_require(value.data >= (const char *)data && value.data + value.len == (const char *)reader->at);
}

static void require_same_as_unpacker(const uint8_t *data, size_t size, bool taken, size_t used)
{
    msgpack_unpacked result;
    size_t offset = 0;

    msgpack_unpacked_init(&result);
    /* Only what the reader took is safe to unpack: that is what it is for. */
    if (taken) {
        fuzz_require(msgpack_unpack_next(&result, (const char *)data, size, &offset) ==
                     MSGPACK_UNPACK_SUCCESS);
        fuzz_require(offset == used);
    }
    msgpack_unpacked_destroy(&result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mp_reader reader = reader_of(data, size);
    struct slice text;
    uint64_t number;
    uint32_t count;

    bool taken = mp_skip(&reader);
    if (taken)
        require_inside(&reader, data, size);
    if (size <= UNPACK_MAX)
        require_same_as_unpacker(data, size, taken, (size_t)(reader.at - data));

    reader = reader_of(data, size);
    if (mp_read_uint(&reader, &number))
        require_inside(&reader, data, size);
    reader = reader_of(data, size);
    if (mp_read_array(&reader, &count)) {
        require_inside(&reader, data, size);
        fuzz_require(count <= size);
    }
    reader = reader_of(data, size);
    bool is_text = mp_read_str(&reader, &text);
    if (is_text)
        require_slice_inside(text, &reader, data);
    reader = reader_of(data, size);
    bool is_bytes = mp_read_bin(&reader, &text);
    if (is_bytes)
        require_slice_inside(text, &reader, data);
    fuzz_require(is_bytes || !is_text);
    return 0;
}
