/* A text message from a JSON client. */
#include "fuzz_command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Whoever hands over text has checked it. */
    if (utf8_valid((const char *)data, size))
        read_message(FACE_JSON, data, size);
    return 0;
}
