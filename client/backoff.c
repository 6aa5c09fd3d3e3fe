#include "client/backoff.h"

unsigned backoff_next(struct backoff *backoff, uint32_t random)
{
    unsigned whole = BACKOFF_FIRST_MS;

    for (unsigned i = 0; i < backoff->tries && whole < BACKOFF_MAX_MS; i++)
        whole *= 2;
    if (whole > BACKOFF_MAX_MS)
        whole = BACKOFF_MAX_MS;
    backoff->tries++;
    return whole / 2 + random % (whole / 2 + 1);
}
