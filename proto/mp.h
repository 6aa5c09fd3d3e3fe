/* A bounds-checked reader of MessagePack that allocates nothing.
 *
 * Lengths are compared with what is left before anything is trusted: a six-byte input that claims four
 * billion elements is refused, not believed. Also used to check foreign input before msgpack-c unpacks it.
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md */
#ifndef PROTO_MP_H
#define PROTO_MP_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stdint.h>

struct mp_reader {
    const unsigned char *at, *end;
};

enum { MP_DEPTH_MAX = 32 }; /* nested arrays and maps; msgpack-c refuses more as well */

/* Each reads one value and steps over it; false (and the reader's position is undefined) when the next value
 * is of another type or cut short. */
bool mp_read_array(struct mp_reader *reader,
                   uint32_t *count); /* the header only; every element has at least one byte */
bool mp_read_map(struct mp_reader *reader, uint32_t *count); /* likewise; key and value follow one another */
bool mp_read_uint(struct mp_reader *reader, uint64_t *value);
bool mp_read_int(struct mp_reader *reader, int64_t *value); /* any integer that fits */
bool mp_read_float(struct mp_reader *reader, double *value);
bool mp_read_bool(struct mp_reader *reader, bool *value);
bool mp_read_str(struct mp_reader *reader, struct slice *value); /* not checked for UTF-8 */
bool mp_read_bin(struct mp_reader *reader, struct slice *value); /* bin or str */
bool mp_read_bin_only(struct mp_reader *reader, struct slice *value);
bool mp_skip(struct mp_reader *reader); /* any one value, nested up to MP_DEPTH_MAX */

#endif
