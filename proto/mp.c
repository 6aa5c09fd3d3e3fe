#include "proto/mp.h"

#include <string.h>

static size_t left(const struct mp_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

static bool read_number(struct mp_reader *reader, size_t width, uint64_t *value)
{
    if (left(reader) < width)
        return false;
    *value = 0;
    for (size_t i = 0; i < width; i++)
        *value = *value << 8 | *reader->at++;
    return true;
}

static bool read_bytes(struct mp_reader *reader, uint64_t len, struct slice *value)
{
    if (len > left(reader))
        return false;
    *value = slice_from(reader->at, (size_t)len);
    reader->at += len;
    return true;
}

static bool read_type(struct mp_reader *reader, unsigned char *type)
{
    if (reader->at == reader->end)
        return false;
    *type = *reader->at++;
    return true;
}

bool mp_read_array(struct mp_reader *reader, uint32_t *count)
{
    unsigned char type;
    uint64_t value;

    if (!read_type(reader, &type))
        return false;
    if ((type & 0xf0) == 0x90)
        value = type & 0x0f;
    else if (type == 0xdc || type == 0xdd) {
        if (!read_number(reader, type == 0xdc ? 2 : 4, &value))
            return false;
    } else {
        return false;
    }
    if (value > left(reader))
        return false;
    *count = (uint32_t)value;
    return true;
}

bool mp_read_map(struct mp_reader *reader, uint32_t *count)
{
    unsigned char type;
    uint64_t value;

    if (!read_type(reader, &type))
        return false;
    if ((type & 0xf0) == 0x80)
        value = type & 0x0f;
    else if ((type != 0xde && type != 0xdf) || !read_number(reader, type == 0xde ? 2 : 4, &value))
        return false;
    if (value * 2 > left(reader))
        return false;
    *count = (uint32_t)value;
    return true;
}

bool mp_read_int(struct mp_reader *reader, int64_t *value)
{
    unsigned char type;
    uint64_t number;

    if (reader->at == reader->end)
        return false;
    type = *reader->at;
    if (type < 0x80 || (type >= 0xcc && type <= 0xcf)) {
        if (!mp_read_uint(reader, &number) || number > INT64_MAX)
            return false;
        *value = (int64_t)number;
        return true;
    }
    reader->at++;
    if (type >= 0xe0) {
        *value = (int8_t)type;
        return true;
    }
    if (type < 0xd0 || type > 0xd3)
        return false;
    size_t width = (size_t)1 << (type - 0xd0);
    if (!read_number(reader, width, &number))
        return false;
    /* Sign extension: shift the sign bit to the top and back. */
    unsigned shift = 64 - 8 * (unsigned)width;
    *value = (int64_t)(number << shift) >> shift;
    return true;
}

bool mp_read_float(struct mp_reader *reader, double *value)
{
    unsigned char type;
    uint64_t bits;

    if (!read_type(reader, &type) || (type != 0xca && type != 0xcb) ||
        !read_number(reader, type == 0xca ? 4 : 8, &bits))
        return false;
    if (type == 0xca) {
        uint32_t low = (uint32_t)bits;
        float single;
        memcpy(&single, &low, sizeof single);
        *value = (double)single;
    } else {
        memcpy(value, &bits, sizeof *value);
    }
    return true;
}

bool mp_read_bool(struct mp_reader *reader, bool *value)
{
    unsigned char type;

    if (!read_type(reader, &type) || (type != 0xc2 && type != 0xc3))
        return false;
    *value = type == 0xc3;
    return true;
}

bool mp_read_uint(struct mp_reader *reader, uint64_t *value)
{
    unsigned char type;

    if (!read_type(reader, &type))
        return false;
    if (type < 0x80) {
        *value = type;
        return true;
    }
    return type >= 0xcc && type <= 0xcf && read_number(reader, (size_t)1 << (type - 0xcc), value);
}

static bool read_str_of(struct mp_reader *reader, unsigned char type, struct slice *value)
{
    uint64_t len;

    if ((type & 0xe0) == 0xa0)
        len = type & 0x1f;
    else if (type < 0xd9 || type > 0xdb || !read_number(reader, (size_t)1 << (type - 0xd9), &len))
        return false;
    return read_bytes(reader, len, value);
}

bool mp_read_str(struct mp_reader *reader, struct slice *value)
{
    unsigned char type;

    return read_type(reader, &type) && read_str_of(reader, type, value);
}

static bool read_bin_of(struct mp_reader *reader, unsigned char type, struct slice *value)
{
    uint64_t len;

    return type >= 0xc4 && type <= 0xc6 && read_number(reader, (size_t)1 << (type - 0xc4), &len) &&
           read_bytes(reader, len, value);
}

bool mp_read_bin(struct mp_reader *reader, struct slice *value)
{
    unsigned char type;

    return read_type(reader, &type) && (read_bin_of(reader, type, value) || read_str_of(reader, type, value));
}

bool mp_read_bin_only(struct mp_reader *reader, struct slice *value)
{
    unsigned char type;

    return read_type(reader, &type) && read_bin_of(reader, type, value);
}

/* The fixed number of bytes that follow type bytes 0xc0 to 0xdf (the length field included), and whether a
 * length field of that width announces further bytes or elements. */
static const struct {
    unsigned char width;
    enum { FIXED, BYTES, EXT, ELEMENTS, PAIRS, NEVER } then;
} layouts[32] = {
    {0, FIXED},  {0, NEVER}, {0, FIXED}, {0, FIXED}, {1, BYTES},    {2, BYTES},    {4, BYTES}, {1, EXT},
    {2, EXT},    {4, EXT},   {4, FIXED}, {8, FIXED}, {1, FIXED},    {2, FIXED},    {4, FIXED}, {8, FIXED},
    {1, FIXED},  {2, FIXED}, {4, FIXED}, {8, FIXED}, {2, FIXED},    {3, FIXED},    {5, FIXED}, {9, FIXED},
    {17, FIXED}, {1, BYTES}, {2, BYTES}, {4, BYTES}, {2, ELEMENTS}, {4, ELEMENTS}, {2, PAIRS}, {4, PAIRS},
};

/* Steps over one value's own bytes; `inner` receives the number of values nested directly in it. */
static bool skip_shallow(struct mp_reader *reader, uint64_t *inner)
{
    unsigned char type;
    uint64_t number = 0;
    struct slice ignored;

    *inner = 0;
    if (!read_type(reader, &type))
        return false;
    if (type < 0x80 || type >= 0xe0)
        return true;
    if (type < 0xa0) {
        *inner = (uint64_t)(type & 0x0f) << (type < 0x90 ? 1 : 0);
        return *inner <= left(reader);
    }
    if (type < 0xc0)
        return read_bytes(reader, type & 0x1f, &ignored);

    size_t width = layouts[type - 0xc0].width;
    switch (layouts[type - 0xc0].then) {
    case FIXED:
        return read_bytes(reader, width, &ignored);
    case BYTES:
        return read_number(reader, width, &number) && read_bytes(reader, number, &ignored);
    case EXT:
        return read_number(reader, width, &number) && read_bytes(reader, number + 1, &ignored);
    case ELEMENTS:
    case PAIRS:
        if (!read_number(reader, width, &number))
            return false;
        *inner = layouts[type - 0xc0].then == PAIRS ? number * 2 : number;
        return *inner <= left(reader);
    case NEVER:
        break;
    }
    return false;
}

/* An array or a map, empty or not. */
static bool is_container(const struct mp_reader *reader)
{
    return left(reader) && ((*reader->at & 0xe0) == 0x80 || (*reader->at >= 0xdc && *reader->at <= 0xdf));
}

bool mp_skip(struct mp_reader *reader)
{
    uint64_t open[MP_DEPTH_MAX]; /* values still to be read at each level */
    size_t depth = 0;
    uint64_t inner;

    for (;;) {
        /* msgpack-c counts an empty container as a level too. */
        if (depth == MP_DEPTH_MAX && is_container(reader))
            return false;
        if (!skip_shallow(reader, &inner))
            return false;
        if (inner) {
            open[depth++] = inner;
            continue;
        }
        /* A value without inner ones is done, and with it every level of which it was the last. */
        while (depth && open[depth - 1] == 1)
            depth--;
        if (!depth)
            return true;
        open[depth - 1]--;
    }
}
