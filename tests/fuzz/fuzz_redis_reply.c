/* However a stream of replies is cut, it is read alike, and its texts are whole. */
#include "fuzz.h"
#include "storage/redis/redis_reply.h"

#include <string.h>

/* A checksum of everything a reply holds, so that two readings can be compared. */
static uint64_t digest(const struct redis_reply *reply, uint64_t sum)
{
    sum = (sum ^ (uint64_t)reply->type) * UINT64_C(0x100000001b3);
    sum = (sum ^ (uint64_t)reply->integer) * UINT64_C(0x100000001b3);
    for (size_t i = 0; i < reply->text.len; i++)
        sum = (sum ^ (unsigned char)reply->text.data[i]) * UINT64_C(0x100000001b3);
    if (reply->text.data)
        fuzz_require(reply->text.data[reply->text.len] == '\0');
    fuzz_require(reply->type == REDIS_TYPE_ARRAY || reply->count == 0);
    for (size_t i = 0; i < reply->count; i++)
        sum = digest(&reply->elements[i], sum);
    return sum;
}

/* Reads all replies, `piece` bytes at a time; false when the stream is broken. */
static bool read_all(const uint8_t *data, size_t size, size_t piece, uint64_t *sum)
{
    struct redis_replies *replies = redis_replies_create();
    const struct redis_reply *reply;
    const char *error = NULL;

    fuzz_require(replies);
    *sum = 0;
    for (size_t done = 0; done < size && !error;) {
        size_t len = size - done < piece ? size - done : piece;
        fuzz_require(redis_replies_feed(replies, (const char *)data + done, len));
        done += len;
        while ((reply = redis_replies_next(replies, &error)))
            *sum = digest(reply, *sum);
    }
    redis_replies_destroy(replies);
    return !error;
}

/* A claim of many elements is met by reserving memory for them: right, and slow. */
static bool claims_much(const uint8_t *data, size_t size)
{
    size_t digits = 0;

    for (size_t i = 0; i < size; i++) {
        digits = data[i] >= '0' && data[i] <= '9' ? digits + 1 : 0;
        if (digits > 4)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t whole, cut;

    if (size > 4096 || claims_much(data, size))
        return 0;
    bool whole_ok = read_all(data, size, size ? size : 1, &whole);
    bool cut_ok = read_all(data, size, 1 + size / 7, &cut);
    fuzz_require(whole_ok == cut_ok && whole == cut);
    return 0;
}
