/* Which characters can be seen. One table decides, for names that clients choose, for log lines, for tables on a terminal; the
 * page's copy of it (web/visible.js) is compared with this one by a test.
 *
 * What can't be seen makes one name look like another, turns a line around (bidi controls), or commands a terminal. */
#ifndef BASE_PRINTABLE_H
#define BASE_PRINTABLE_H

#include <stddef.h>
#include <stdint.h>

enum printable {
    PRINTABLE_SEEN,
    PRINTABLE_FAINT, /* belongs in honest text, but nobody sees it: joiners, variation selectors, wide spaces. Fit for a
                         name, and escaped where people tell names apart */
    PRINTABLE_HIDDEN, /* controls, bidi controls, zero width, tags, noncharacters: never fit for a name */
};

enum printable printable_class(uint32_t character);

/* The character at `text`: its length, or 0 when the bytes there are not valid UTF-8. */
size_t printable_step(const char *text, size_t len, uint32_t *character);

/* Whether a text can be a name. */
enum printable_fault { PRINTABLE_OK, PRINTABLE_NOT_UTF8, PRINTABLE_HAS_CONTROL, PRINTABLE_HAS_HIDDEN };
enum printable_fault printable_check(const char *text, size_t len);

/* Writes a character as JSON does, \u202e or two of them, NUL-terminated; returns the length. */
enum { PRINTABLE_ESCAPE_SIZE = 13 };
size_t printable_escape(uint32_t character, char out[static PRINTABLE_ESCAPE_SIZE]);

#endif
