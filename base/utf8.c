#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

size_t utf8_step(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;

    if (!len)
        return 0;
    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    size_t count = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (len < count)
        return 0;
    for (size_t i = 1; i < count; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return count;
}

bool utf8_valid(const char *text, size_t len)
{
    size_t i = 0;

    while (i < len) {
        /* Most text is ASCII: eight bytes at a time while no high bit is set. */
        uint64_t word;
        if (len - i >= sizeof word) {
            memcpy(&word, text + i, sizeof word);
            if (!(word & UINT64_C(0x8080808080808080))) {
                i += sizeof word;
                continue;
            }
        }
        size_t step = utf8_step(text + i, len - i);
        if (!step)
            return false;
        i += step;
    }
    return true;
}
