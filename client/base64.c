#include "client/base64.h"

#include <stdint.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

bool base64_encode(const void *data, size_t len, struct buffer *out)
{
    const unsigned char *from = data;

    if (!buffer_reserve(out, (len + 2) / 3 * 4))
        return false;
    for (size_t i = 0; i < len; i += 3) {
        size_t have = len - i < 3 ? len - i : 3;
        uint32_t bits = (uint32_t)from[i] << 16 | (uint32_t)(have > 1 ? from[i + 1] : 0) << 8 |
                        (uint32_t)(have > 2 ? from[i + 2] : 0);
        const char group[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                               have > 1 ? digits[bits >> 6 & 63] : '=', have > 2 ? digits[bits & 63] : '='};
        buffer_append(out, group, sizeof group);
    }
    return !out->failed;
}

static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(const char *text, size_t len, void *out, size_t *out_len)
{
    unsigned char *to = out;
    size_t padding = 0;

    *out_len = 0;
    if (len % 4)
        return false;
    while (padding < 2 && len && text[len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < len; i += 4) {
        size_t skip = i + 4 == len ? padding : 0;
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; k++) {
            int value = k < 4 - skip ? digit_value(text[i + k]) : 0;
            if (value < 0)
                return false;
            bits = bits << 6 | (uint32_t)value;
        }
        /* Bits that no byte takes must be zero, so that each value has one encoding. */
        if (skip && (bits & (skip == 1 ? 0xffu : 0xffffu)))
            return false;
        for (size_t k = 0; k < 3 - skip; k++)
            to[(*out_len)++] = (unsigned char)(bits >> (16 - 8 * k));
    }
    return true;
}
