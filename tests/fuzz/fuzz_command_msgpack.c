/* A binary message from a MessagePack client. */
#include "fuzz_command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_message(FACE_MSGPACK, data, size);
    return 0;
}
