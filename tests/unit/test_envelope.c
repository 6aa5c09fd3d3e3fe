/* The envelope, with msgpack-c as the oracle. */
#include "proto/address.h"
#include "proto/envelope.h"
#include "tests/lib/alloc_fixture.h"

#include <msgpack.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct message_fields sample = {.kind = MESSAGE_REQUEST,
                                             .content = CONTENT_TEXT,
                                             .time_ms = UINT64_C(1700000000123),
                                             .id = {"m1", 2},
                                             .from = {"session:bob", 11},
                                             .to = {"user:admin", 10},
                                             .payload = {"h\xc3\xa9llo", 6},
                                             .correlation = {"r7", 2}};

static void assert_same(const struct message_fields *a, const struct message_fields *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->content, b->content);
    assert_true(a->time_ms == b->time_ms);
    assert_true(slice_equal(a->id, b->id));
    assert_true(slice_equal(a->from, b->from));
    assert_true(slice_equal(a->to, b->to));
    assert_true(slice_equal(a->payload, b->payload));
    assert_true(slice_equal(a->correlation, b->correlation));
}

static void assert_round_trip(const struct message_fields *fields)
{
    struct message_fields back;
    struct buffer buffer;

    buffer_init(&buffer, 0);
    assert_true(envelope_encode(fields, &buffer));
    assert_null(envelope_decode(slice_from(buffer.data, buffer.len), &back));
    assert_same(fields, &back);
    buffer_close(&buffer);
}

static void test_round_trip(void **state)
{
    static const uint64_t times[] = {0, 127, 128, 1u << 16, UINT32_MAX, UINT64_MAX};
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 1 << 20};
    char *bytes = malloc(1 << 20);

    (void)state;
    memset(bytes, 0xfe, 1 << 20);
    assert_round_trip(&sample);
    assert_round_trip(&(struct message_fields){.kind = MESSAGE_DATA});
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct message_fields fields = sample;
        fields.time_ms = times[i];
        assert_round_trip(&fields);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct message_fields fields = sample;
        fields.content = CONTENT_BINARY;
        fields.payload = slice_from(bytes, sizes[i]);
        assert_round_trip(&fields);
    }
    for (unsigned kind = 0; kind < MESSAGE_KIND_COUNT; kind++) {
        for (unsigned content = 0; content < CONTENT_COUNT; content++) {
            struct message_fields fields = sample;
            fields.kind = (enum message_kind)kind;
            fields.content = (enum message_content)content;
            assert_round_trip(&fields);
        }
    }
    memset(bytes, 'x', 300);
    struct message_fields longest = sample;
    longest.id = slice_from(bytes, MESSAGE_ID_MAX);
    longest.from = longest.to = slice_from(bytes, ADDRESS_MAX);
    longest.correlation = slice_from(bytes, CORRELATION_MAX);
    assert_round_trip(&longest);
    free(bytes);
}

static void assert_str(const msgpack_object *object, struct slice expected)
{
    assert_int_equal(object->type, MSGPACK_OBJECT_STR);
    assert_true(slice_equal(slice_from(object->via.str.ptr, object->via.str.size), expected));
}

static void test_any_msgpack_reader_understands_it(void **state)
{
    struct buffer buffer;
    msgpack_unpacked result;
    size_t offset = 0;

    (void)state;
    buffer_init(&buffer, 0);
    assert_true(buffer_append_text(&buffer, "before"));
    assert_true(envelope_encode(&sample, &buffer));
    buffer_drop_front(&buffer, 6);
    msgpack_unpacked_init(&result);
    assert_int_equal(msgpack_unpack_next(&result, buffer.data, buffer.len, &offset), MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(offset, buffer.len);
    assert_int_equal(result.data.type, MSGPACK_OBJECT_ARRAY);
    assert_int_equal(result.data.via.array.size, 9);
    const msgpack_object *at = result.data.via.array.ptr;
    assert_int_equal(at[0].via.u64, ENVELOPE_VERSION);
    assert_str(&at[1], sample.id);
    assert_int_equal(at[2].via.u64, MESSAGE_REQUEST);
    assert_str(&at[3], sample.from);
    assert_str(&at[4], sample.to);
    assert_int_equal(at[5].via.u64, sample.time_ms);
    assert_int_equal(at[6].via.u64, CONTENT_TEXT);
    assert_int_equal(at[7].type, MSGPACK_OBJECT_BIN);
    assert_true(slice_equal(slice_from(at[7].via.bin.ptr, at[7].via.bin.size), sample.payload));
    assert_str(&at[8], sample.correlation);
    msgpack_unpacked_destroy(&result);
    buffer_close(&buffer);
}

static void test_what_is_no_envelope_is_an_operators_text(void **state)
{
    static const char *const texts[] = {"", "hello", "{\"a\":1}", "\xe5\x90\x8d", "[]", "\x7f"};
    struct message_fields fields;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_null(envelope_decode(slice_text(texts[i]), &fields));
        assert_int_equal(fields.kind, MESSAGE_DATA);
        assert_int_equal(fields.content, CONTENT_TEXT);
        assert_true(slice_is(fields.payload, texts[i]));
        assert_int_equal(fields.from.len + fields.to.len + fields.id.len + fields.correlation.len, 0);
    }
    assert_null(envelope_decode(slice_from("\xff\x00", 2), &fields));
    assert_int_equal(fields.content, CONTENT_BINARY);
    assert_int_equal(fields.payload.len, 2);
}

/* An envelope of `count` elements, of which element `odd` is replaced by what `pack` writes. */
static void pack_with(msgpack_sbuffer *buffer, size_t count, size_t odd, void (*pack)(msgpack_packer *))
{
    msgpack_packer packer;

    msgpack_sbuffer_clear(buffer);
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, count);
    for (size_t i = 0; i < count; i++) {
        if (i == odd)
            pack(&packer);
        else if (i == 0)
            msgpack_pack_uint8(&packer, ENVELOPE_VERSION);
        else if (i == 2 || i == 5 || i == 6 || i > 10)
            msgpack_pack_uint8(&packer, 0);
        else
            msgpack_pack_str(&packer, 0);
    }
}

static void pack_nil(msgpack_packer *packer)
{
    msgpack_pack_nil(packer);
}

static void pack_negative(msgpack_packer *packer)
{
    msgpack_pack_int(packer, -1);
}

static void pack_large_number(msgpack_packer *packer)
{
    msgpack_pack_uint8(packer, 100);
}

static void pack_zero(msgpack_packer *packer)
{
    msgpack_pack_uint8(packer, 0);
}

static void pack_bad_text(msgpack_packer *packer)
{
    msgpack_pack_str(packer, 1);
    msgpack_pack_str_body(packer, "\xff", 1);
}

static void pack_long_text(msgpack_packer *packer)
{
    static const char text[300];

    msgpack_pack_str(packer, sizeof text);
    msgpack_pack_str_body(packer, text, sizeof text);
}

static void pack_nested(msgpack_packer *packer)
{
    msgpack_pack_map(packer, 1);
    msgpack_pack_str(packer, 0);
    msgpack_pack_array(packer, 2);
    msgpack_pack_nil(packer);
    msgpack_pack_double(packer, 1.5);
}

static const char *decode_with(size_t count, size_t odd, void (*pack)(msgpack_packer *))
{
    struct message_fields fields;
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_with(&buffer, count, odd, pack);
    const char *wrong = envelope_decode(slice_from(buffer.data, buffer.size), &fields);
    msgpack_sbuffer_destroy(&buffer);
    return wrong;
}

static void test_bad_elements_are_refused(void **state)
{
    static const size_t texts[] = {1, 3, 4, 8};

    (void)state;
    assert_null(decode_with(9, 0, pack_large_number)); /* a later version, compatible in these nine */
    assert_non_null(decode_with(9, 0, pack_zero));
    for (size_t i = 0; i < 9; i++) {
        assert_non_null(decode_with(9, i, pack_nil));
        assert_non_null(decode_with(9, i, pack_negative));
        assert_non_null(decode_with(9, i, pack_bad_text));
        assert_non_null(decode_with(9, i, pack_nested));
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_non_null(decode_with(9, texts[i], pack_long_text));
    assert_non_null(decode_with(9, 2, pack_large_number));
    assert_non_null(decode_with(9, 6, pack_large_number));
    assert_null(decode_with(9, 5, pack_large_number));
}

static void test_later_versions_may_append(void **state)
{
    enum { KNOWN = 12 };

    (void)state;
    for (size_t count = 0; count < 9; count++)
        assert_non_null(decode_with(count, 99, pack_nil));
    for (size_t count = 9; count <= 15; count++)
        assert_null(decode_with(count, KNOWN, pack_nested));
}

static void test_cut_or_continued_is_refused(void **state)
{
    struct message_fields fields;
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 0);
    assert_true(envelope_encode(&sample, &buffer));
    for (size_t len = 1; len < buffer.len; len++)
        assert_non_null(envelope_decode(slice_from(buffer.data, len), &fields));
    assert_true(buffer_append(&buffer, "\xc0", 1));
    assert_non_null(envelope_decode(slice_from(buffer.data, buffer.len), &fields));
    buffer_close(&buffer);
}

static void test_does_not_fit(void **state)
{
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 50);
    assert_true(buffer_append_text(&buffer, "kept"));
    assert_false(envelope_encode(&sample, &buffer));
    assert_true(buffer.failed);
    assert_int_equal(buffer.len, 4);
    buffer_close(&buffer);

    alloc_fixture_install();
    buffer_init(&buffer, 0);
    alloc_fixture_fail(1);
    assert_false(envelope_encode(&sample, &buffer));
    assert_int_equal(buffer.len, 0);
    buffer_clear(&buffer);
    assert_true(envelope_encode(&sample, &buffer));
    buffer_close(&buffer);
    assert_int_equal(alloc_fixture_remove(), 0);
}

/* ---- marks ---- */

static void test_a_mark_changes_nothing_else(void **state)
{
    struct message_fields forms[3] = {sample, sample, sample}, back;
    const struct envelope_mark mark = {.origin = UINT64_C(0x8123456789abcdef), .number = 0xfedcba98, .copy = true};

    (void)state;
    forms[1].offset = slice_text("1700000000123-7");
    forms[1].epoch = slice_text("e1");
    forms[2].timeout_ms = 5000;
    for (size_t i = 0; i < 3; i++) {
        struct buffer plain, marked;
        struct envelope_mark read;
        buffer_init(&plain, 0);
        buffer_init(&marked, 0);
        assert_true(envelope_encode(&forms[i], &plain));
        assert_false(envelope_read_mark(slice_from(plain.data, plain.len), &read));
        assert_true(envelope_mark(slice_from(plain.data, plain.len), &mark, &marked));
        struct slice bytes = slice_from(marked.data, marked.len);
        assert_true(envelope_read_mark(bytes, &read));
        assert_true(read.origin == mark.origin && read.number == mark.number && read.copy);
        assert_null(envelope_decode(bytes, &back));
        assert_same(&forms[i], &back);
        assert_true(slice_equal(forms[i].offset, back.offset) && slice_equal(forms[i].epoch, back.epoch));
        assert_true(forms[i].timeout_ms == back.timeout_ms);
        assert_int_equal(envelope_kind(bytes), MESSAGE_REQUEST);
        /* Not twice. */
        assert_false(envelope_mark(bytes, &mark, &plain));
        for (size_t len = 0; len < bytes.len; len++)
            envelope_read_mark(slice_from(bytes.data, len), &read);
        buffer_close(&plain);
        buffer_close(&marked);
    }
}

static void test_what_is_no_envelope_has_no_mark(void **state)
{
    static const char *const texts[] = {"", "hello", "\x9d", "\x90", "\x9f\x01"};
    const struct envelope_mark mark = {.origin = 1};
    struct envelope_mark read;
    struct buffer out;

    (void)state;
    buffer_init(&out, 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_false(envelope_mark(slice_text(texts[i]), &mark, &out));
        assert_false(envelope_read_mark(slice_text(texts[i]), &read));
    }
    assert_int_equal(out.len, 0);
    assert_int_equal(envelope_kind(slice_text("hello")), MESSAGE_DATA);
    assert_int_equal(envelope_kind(slice_text("\x99\x01\xa1")), MESSAGE_KIND_COUNT);
    assert_int_equal(envelope_kind(slice_text("\x99\x01\xa0\x7f\xa0\xa0\xa0\xa0\xa0\xa0")), MESSAGE_KIND_COUNT);
    buffer_close(&out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_any_msgpack_reader_understands_it),
        cmocka_unit_test(test_what_is_no_envelope_is_an_operators_text),
        cmocka_unit_test(test_bad_elements_are_refused),
        cmocka_unit_test(test_later_versions_may_append),
        cmocka_unit_test(test_cut_or_continued_is_refused),
        cmocka_unit_test(test_does_not_fit),
        cmocka_unit_test(test_a_mark_changes_nothing_else),
        cmocka_unit_test(test_what_is_no_envelope_has_no_mark),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
