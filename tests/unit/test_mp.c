/* The MessagePack reader, with msgpack-c as the oracle. */
#include "proto/mp.h"

#include <msgpack.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct mp_reader reader_of(const void *data, size_t len)
{
    return (struct mp_reader){.at = data, .end = (const unsigned char *)data + len};
}

static const uint64_t numbers[] = {0,         1,          127,        128,        255,
                                   256,       65535,      65536,      UINT32_MAX, 1ull << 32,
                                   INT64_MAX, UINT64_MAX, 1ull << 63, 0x7ffffffe, 0x123456789a};

static void test_uint(void **state)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    (void)state;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint64_t value = 0;
        msgpack_sbuffer_clear(&buffer);
        msgpack_pack_uint64(&packer, numbers[i]);
        struct mp_reader reader = reader_of(buffer.data, buffer.size);
        assert_true(mp_read_uint(&reader, &value));
        assert_true(value == numbers[i]);
        assert_ptr_equal(reader.at, reader.end);
        for (size_t len = 0; len < buffer.size; len++) {
            reader = reader_of(buffer.data, len);
            assert_false(mp_read_uint(&reader, &value));
        }
    }
    msgpack_sbuffer_destroy(&buffer);
}

static void test_uint_refuses_other_types(void **state)
{
    /* Signed integers, str, nil, bool, array, map, float; the rest of each row is zero. */
    static const char inputs[][10] = {"\xff", "\xe0", "\xd0\x01", "\xd1", "\xd2", "\xd3", "\xa1x",
                                      "\xc0", "\xc3", "\x90",     "\x80", "\xca", "\xcb"};
    uint64_t value;

    (void)state;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        struct mp_reader reader = reader_of(inputs[i], sizeof inputs[i]);
        assert_false(mp_read_uint(&reader, &value));
    }
}

static void test_str_and_bin(void **state)
{
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 200000};
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    char *text = calloc(1, 200000);

    (void)state;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i / 2];
        bool bin = i % 2;
        struct slice value;
        msgpack_sbuffer_clear(&buffer);
        if (bin) {
            msgpack_pack_bin(&packer, size);
            msgpack_pack_bin_body(&packer, text, size);
        } else {
            msgpack_pack_str(&packer, size);
            msgpack_pack_str_body(&packer, text, size);
        }
        struct mp_reader reader = reader_of(buffer.data, buffer.size);
        assert_true(mp_read_bin(&reader, &value));
        assert_int_equal(value.len, size);
        assert_ptr_equal(value.data + size, buffer.data + buffer.size);
        assert_ptr_equal(reader.at, reader.end);
        reader = reader_of(buffer.data, buffer.size);
        assert_int_equal(mp_read_str(&reader, &value), !bin);
        if (buffer.size > 1) {
            reader = reader_of(buffer.data, buffer.size - 1);
            assert_false(mp_read_bin(&reader, &value));
            reader = reader_of(buffer.data, buffer.size - 1);
            assert_false(mp_read_str(&reader, &value));
        }
    }
    free(text);
    msgpack_sbuffer_destroy(&buffer);
}

static void test_array(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 65535, 65536};
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    (void)state;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t count;
        msgpack_sbuffer_clear(&buffer);
        msgpack_pack_array(&packer, sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            msgpack_pack_nil(&packer);
        struct mp_reader reader = reader_of(buffer.data, buffer.size);
        assert_true(mp_read_array(&reader, &count));
        assert_int_equal(count, sizes[i]);
        assert_int_equal(reader.end - reader.at, sizes[i]);
        reader = reader_of(buffer.data, buffer.size - 1); /* an element short */
        assert_false(mp_read_array(&reader, &count));
    }
    msgpack_sbuffer_destroy(&buffer);
}

static void test_huge_claims_are_refused(void **state)
{
    static const char *const inputs[] = {"\xdd\xff\xff\xff\xff\x00", "\xdf\xff\xff\xff\xff\x00",
                                         "\xdb\xff\xff\xff\xff\x00", "\xc6\xff\xff\xff\xff\x00",
                                         "\xc9\xff\xff\xff\xff\x00", "\xdf\x80\x00\x00\x00\x00"};

    (void)state;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        struct mp_reader reader = reader_of(inputs[i], 6);
        struct slice value;
        uint32_t count;
        assert_false(mp_skip(&reader));
        reader = reader_of(inputs[i], 6);
        assert_false(mp_read_array(&reader, &count));
        reader = reader_of(inputs[i], 6);
        assert_false(mp_read_bin(&reader, &value));
    }
}

/* A random value, nested up to `depth`. */
static void pack_random(msgpack_packer *packer, unsigned depth)
{
    static const size_t ext_sizes[] = {1, 2, 4, 8, 16, 0, 3, 255, 256, 70000};
    static char bytes[70000];
    size_t size = (size_t)rand() % 40;

    switch (rand() % (depth ? 12 : 9)) {
    case 0:
        msgpack_pack_nil(packer);
        break;
    case 1:
        msgpack_pack_true(packer);
        break;
    case 2:
        msgpack_pack_int64(packer, (int64_t)rand() * rand() * (rand() % 2 ? 1 : -1) >> rand() % 63);
        break;
    case 3:
        msgpack_pack_uint64(packer, numbers[(size_t)rand() % (sizeof numbers / sizeof *numbers)]);
        break;
    case 4:
        msgpack_pack_float(packer, 1.5f);
        break;
    case 5:
        msgpack_pack_double(packer, -2.25);
        break;
    case 6:
        size = rand() % 20 ? size : (size_t)rand() % sizeof bytes;
        msgpack_pack_str(packer, size);
        msgpack_pack_str_body(packer, bytes, size);
        break;
    case 7:
        size = rand() % 20 ? size : (size_t)rand() % sizeof bytes;
        msgpack_pack_bin(packer, size);
        msgpack_pack_bin_body(packer, bytes, size);
        break;
    case 8:
        size = ext_sizes[(size_t)rand() % 10];
        msgpack_pack_ext(packer, size, 5);
        msgpack_pack_ext_body(packer, bytes, size);
        break;
    case 9:
        size %= 20;
        msgpack_pack_map(packer, size);
        for (size_t i = 0; i < 2 * size; i++)
            pack_random(packer, rand() % 4 ? 0 : depth - 1);
        break;
    default:
        size %= 20;
        msgpack_pack_array(packer, size);
        for (size_t i = 0; i < size; i++)
            pack_random(packer, rand() % 4 ? 0 : depth - 1);
    }
}

static void test_skip_agrees_with_the_packer(void **state)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    (void)state;
    srand(42);
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (size_t round = 0; round < 5000; round++) {
        msgpack_sbuffer_clear(&buffer);
        pack_random(&packer, 6);
        size_t size = buffer.size;
        msgpack_pack_nil(&packer); /* the one after */
        struct mp_reader reader = reader_of(buffer.data, buffer.size);
        assert_true(mp_skip(&reader));
        assert_int_equal(reader.at - (const unsigned char *)buffer.data, size);
        /* Cut anywhere, it is refused. */
        size_t cut = (size_t)rand() % size;
        reader = reader_of(buffer.data, cut);
        assert_false(mp_skip(&reader));
    }
    msgpack_sbuffer_destroy(&buffer);
}

/* What the unpacker takes, the reader steps over, to the same place; what it refuses, the reader refuses. */
static void test_skip_agrees_with_the_unpacker(void **state)
{
    unsigned char bytes[24];
    msgpack_unpacked result;

    (void)state;
    srand(7);
    msgpack_unpacked_init(&result);
    for (size_t round = 0; round < 500000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (unsigned char)(rand() >> 7);
        if (bytes[0] >= 0xdc && bytes[0] <= 0xdf)
            bytes[1] = bytes[2] = 0; /* or the unpacker reserves gigabytes */
        for (size_t i = 1; i < sizeof bytes; i++)
            if (bytes[i] >= 0xdc && bytes[i] <= 0xdf)
                bytes[i] = 0x91;
        struct mp_reader reader = reader_of(bytes, sizeof bytes);
        bool taken = mp_skip(&reader);
        size_t offset = 0;
        msgpack_unpack_return unpacked =
            msgpack_unpack_next(&result, (const char *)bytes, sizeof bytes, &offset);
        assert_int_equal(taken, unpacked == MSGPACK_UNPACK_SUCCESS);
        if (taken)
            assert_int_equal(reader.at - bytes, offset);
    }
    msgpack_unpacked_destroy(&result);
}

static void assert_depth(const unsigned char *nested, size_t len, size_t depth)
{
    struct mp_reader reader = reader_of(nested, len);
    msgpack_unpacked result;
    size_t offset = 0;

    assert_int_equal(mp_skip(&reader), depth <= MP_DEPTH_MAX);
    msgpack_unpacked_init(&result);
    bool unpacked =
        msgpack_unpack_next(&result, (const char *)nested, len, &offset) == MSGPACK_UNPACK_SUCCESS;
    assert_int_equal(unpacked, depth <= MP_DEPTH_MAX);
    msgpack_unpacked_destroy(&result);
}

static void test_nesting_ends_where_the_unpackers_does(void **state)
{
    enum { DEEPEST = MP_DEPTH_MAX + 5 };
    unsigned char nested[2 * DEEPEST + 1];

    (void)state;
    for (size_t depth = 1; depth <= DEEPEST; depth++) {
        memset(nested, 0xc0, sizeof nested);
        memset(nested, 0x91, depth); /* arrays of one */
        assert_depth(nested, depth + 1, depth);
        nested[depth - 1] = 0x90; /* the innermost is empty */
        assert_depth(nested, depth, depth);
        memset(nested, 0xc0, sizeof nested);
        memset(nested, 0x81, depth); /* maps, each in the key of the next */
        assert_depth(nested, 2 * depth + 1, depth);
        nested[depth - 1] = 0x80;
        assert_depth(nested, 2 * depth - 1, depth);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uint),
        cmocka_unit_test(test_uint_refuses_other_types),
        cmocka_unit_test(test_str_and_bin),
        cmocka_unit_test(test_array),
        cmocka_unit_test(test_huge_claims_are_refused),
        cmocka_unit_test(test_skip_agrees_with_the_packer),
        cmocka_unit_test(test_skip_agrees_with_the_unpacker),
        cmocka_unit_test(test_nesting_ends_where_the_unpackers_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
