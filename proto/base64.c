#include "proto/base64.h"

#include <limits.h>
#include <openssl/evp.h>
#include <stdint.h>

bool base64_encode(struct slice bytes, struct buffer *out)
{
    /* OpenSSL writes a NUL that isn't part of the text. */
    size_t len = (bytes.len + 2) / 3 * 4;

    if (bytes.len > INT_MAX / 2 || !buffer_reserve(out, len + 1)) {
        out->failed = true;
        return false;
    }
    EVP_EncodeBlock((unsigned char *)out->data + out->len, (const unsigned char *)bytes.data, (int)bytes.len);
    out->len += len;
    return true;
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Strict, which OpenSSL's decoder is not: no whitespace, padding only at the end, unused bits zero. */
bool base64_decode(struct slice text, struct buffer *out)
{
    size_t padding = 0;

    if (text.len % 4 != 0 || !buffer_reserve(out, text.len / 4 * 3))
        return false;
    while (padding < 2 && text.len > padding && text.data[text.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text.len; i += 4) {
        uint32_t group = 0;
        size_t digits = i + 4 == text.len ? 4 - padding : 4;
        for (size_t j = 0; j < 4; j++) {
            int value = j < digits ? digit(text.data[i + j]) : 0;
            if (value < 0)
                return false;
            group = group << 6 | (uint32_t)value;
        }
        unsigned char bytes[] = {(unsigned char)(group >> 16), (unsigned char)(group >> 8),
                                 (unsigned char)group};
        if ((digits < 4 && bytes[2]) || (digits < 3 && bytes[1]))
            return false;
        buffer_append(out, bytes, digits - 1);
    }
    return true;
}
