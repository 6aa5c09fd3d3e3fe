/* What passes as a name can be seen and survives; what is escaped is ASCII, and says which character it was. */
#include "base/printable.h"
#include "base/utf8.h"
#include "fuzz.h"

#include <stdio.h>
#include <string.h>

static void require_escape(uint32_t character)
{
    char out[PRINTABLE_ESCAPE_SIZE];
    unsigned high = 0, low = 0;
    size_t len = printable_escape(character, out);

    fuzz_require(len == strlen(out) && (len == 6 || len == 12));
    fuzz_require(sscanf(out, "\\u%4x\\u%4x", &high, &low) == (len == 6 ? 1 : 2));
    fuzz_require((len == 6 ? high : 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)) == character);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size > 0 ? size : 1);
    bool hidden = false, control = false;
    uint32_t character;
    size_t at = 0;

    fuzz_require(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    for (size_t step; at < size && (step = printable_step(text + at, size - at, &character)); at += step) {
        fuzz_require(step == utf8_step(text + at, size - at) && character <= 0x10ffff);
        require_escape(character);
        control |= character < 0x20 || (character >= 0x7f && character <= 0x9f);
        hidden |= printable_class(character) == PRINTABLE_HIDDEN;
    }
    enum printable_fault fault = printable_check(text, size);
    fuzz_require(control ? hidden : true);
    fuzz_require((fault == PRINTABLE_OK) == (at == size && !hidden));
    fuzz_require(fault != PRINTABLE_NOT_UTF8 || !utf8_valid(text, size));
    free(text);
    return 0;
}
