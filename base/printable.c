#include "base/printable.h"

#include "base/utf8.h"

#include <stdio.h>

struct range {
    uint32_t first, last;
    enum printable class;
};

/* In order, without overlaps. Based on Unicode's Default_Ignorable_Code_Point, Bidi_Control, White_Space, Cc and
 * Noncharacter_Code_Point. The last two code points of every plane are noncharacters, too. */
static const struct range ranges[] = {
    {0x0000, 0x001f, PRINTABLE_HIDDEN},   /* C0 */
    {0x007f, 0x009f, PRINTABLE_HIDDEN},   /* DEL, C1 */
    {0x00a0, 0x00a0, PRINTABLE_FAINT},    /* no-break space */
    {0x00ad, 0x00ad, PRINTABLE_HIDDEN},   /* soft hyphen */
    {0x034f, 0x034f, PRINTABLE_HIDDEN},   /* combining grapheme joiner */
    {0x061c, 0x061c, PRINTABLE_HIDDEN},   /* Arabic letter mark: bidi */
    {0x115f, 0x1160, PRINTABLE_HIDDEN},   /* Hangul fillers */
    {0x1680, 0x1680, PRINTABLE_FAINT},    /* ogham space */
    {0x17b4, 0x17b5, PRINTABLE_HIDDEN},   /* Khmer inherent vowels */
    {0x180b, 0x180f, PRINTABLE_FAINT},    /* Mongolian variation selectors and vowel separator */
    {0x2000, 0x200a, PRINTABLE_FAINT},    /* spaces of many widths */
    {0x200b, 0x200b, PRINTABLE_HIDDEN},   /* zero width space */
    {0x200c, 0x200d, PRINTABLE_FAINT},    /* joiners: Persian, Indic scripts, emoji */
    {0x200e, 0x200f, PRINTABLE_HIDDEN},   /* bidi marks */
    {0x2028, 0x202e, PRINTABLE_HIDDEN},   /* line and paragraph separators, bidi embeddings and overrides */
    {0x202f, 0x202f, PRINTABLE_FAINT},    /* narrow no-break space */
    {0x205f, 0x205f, PRINTABLE_FAINT},    /* mathematical space */
    {0x2060, 0x206f, PRINTABLE_HIDDEN},   /* word joiner, invisible operators, bidi isolates */
    {0x2800, 0x2800, PRINTABLE_FAINT},    /* blank braille pattern */
    {0x3000, 0x3000, PRINTABLE_FAINT},    /* ideographic space */
    {0x3164, 0x3164, PRINTABLE_HIDDEN},   /* Hangul filler */
    {0xd800, 0xdfff, PRINTABLE_HIDDEN},   /* surrogates: no characters */
    {0xfdd0, 0xfdef, PRINTABLE_HIDDEN},   /* noncharacters */
    {0xfe00, 0xfe0f, PRINTABLE_FAINT},    /* variation selectors: emoji */
    {0xfeff, 0xfeff, PRINTABLE_HIDDEN},   /* byte order mark */
    {0xffa0, 0xffa0, PRINTABLE_HIDDEN},   /* halfwidth Hangul filler */
    {0xfff0, 0xfffb, PRINTABLE_HIDDEN},   /* unassigned, interlinear annotation */
    {0x13430, 0x13440, PRINTABLE_FAINT},  /* how hieroglyphs are joined */
    {0x1bca0, 0x1bca3, PRINTABLE_HIDDEN}, /* shorthand format controls */
    {0x1d173, 0x1d17a, PRINTABLE_HIDDEN}, /* musical format controls */
    {0xe0000, 0xe00ff, PRINTABLE_HIDDEN}, /* tags */
    {0xe0100, 0xe01ef, PRINTABLE_FAINT},  /* variation selectors: ideographs in names */
    {0xe01f0, 0xe0fff, PRINTABLE_HIDDEN},
};

enum printable printable_class(uint32_t character)
{
    size_t low = 0, high = sizeof ranges / sizeof *ranges;

    if (character > 0x10ffff || (character & 0xfffe) == 0xfffe)
        return PRINTABLE_HIDDEN;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (character > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof ranges / sizeof *ranges && character >= ranges[low].first ? ranges[low].class
                                                                                  : PRINTABLE_SEEN;
}

size_t printable_step(const char *text, size_t len, uint32_t *character)
{
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t step = utf8_step(text, len);

    *character = step ? (unsigned char)text[0] & masks[step] : 0;
    for (size_t i = 1; i < step; i++)
        *character = *character << 6 | ((unsigned char)text[i] & 0x3f);
    return step;
}

enum printable_fault printable_check(const char *text, size_t len)
{
    uint32_t character;

    for (size_t i = 0, step; i < len; i += step) {
        unsigned char c = (unsigned char)text[i];
        step = 1;
        if (c >= 0x20 && c < 0x7f)
            continue;
        step = printable_step(text + i, len - i, &character);
        if (!step)
            return PRINTABLE_NOT_UTF8;
        if (character < 0x20 || (character >= 0x7f && character < 0xa0))
            return PRINTABLE_HAS_CONTROL;
        if (printable_class(character) == PRINTABLE_HIDDEN)
            return PRINTABLE_HAS_HIDDEN;
    }
    return PRINTABLE_OK;
}

size_t printable_escape(uint32_t character, char out[static PRINTABLE_ESCAPE_SIZE])
{
    unsigned c = character & 0x1fffff;

    if (c < 0x10000)
        return (size_t)snprintf(out, PRINTABLE_ESCAPE_SIZE, "\\u%04x", c);
    return (size_t)snprintf(out, PRINTABLE_ESCAPE_SIZE, "\\u%04x\\u%04x",
                            0xd800 + ((c - 0x10000) >> 10 & 0x3ff), 0xdc00 + (c & 0x3ff));
}
