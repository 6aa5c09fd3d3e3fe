#include "storage/offset.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

/* Decimal digits at the front of `text`, less than 2^63; false when there are none. */
static bool take_number(struct slice *text, uint64_t *number)
{
    size_t i = 0;

    *number = 0;
    for (; i < text->len && text->data[i] >= '0' && text->data[i] <= '9'; i++) {
        if (*number > (INT64_MAX - 9) / 10)
            return false;
        *number = *number * 10 + (uint64_t)(text->data[i] - '0');
    }
    *text = slice_from(text->data + i, text->len - i);
    return i > 0;
}

bool storage_offset_parse(struct slice text, struct storage_offset *offset)
{
    if (!take_number(&text, &offset->ms) || !text.len || text.data[0] != '-')
        return false;
    text = slice_from(text.data + 1, text.len - 1);
    return take_number(&text, &offset->n) && !text.len && (offset->ms || offset->n);
}

size_t storage_offset_format(const struct storage_offset *offset, char out[static OFFSET_MAX + 1])
{
    return (size_t)snprintf(out, OFFSET_MAX + 1, "%" PRIu64 "-%" PRIu64, offset->ms, offset->n);
}

int storage_offset_compare(const struct storage_offset *a, const struct storage_offset *b)
{
    if (a->ms != b->ms)
        return a->ms < b->ms ? -1 : 1;
    return a->n == b->n ? 0 : a->n < b->n ? -1 : 1;
}

void storage_epoch_create(char out[static STORAGE_EPOCH_LEN + 1])
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
    unsigned char random[STORAGE_EPOCH_LEN];

    /* Without entropy, at early boot, the time will do. */
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        for (size_t i = 0; i < sizeof random; i++)
            random[i] = (unsigned char)((clock_wall_ms() << 20 ^ clock_monotonic_us()) >> (5 * i));
    for (size_t i = 0; i < sizeof random; i++)
        out[i] = digits[random[i] & 31];
    out[STORAGE_EPOCH_LEN] = '\0';
}

bool storage_epoch_matches(const struct storage_history_query *query, struct slice epoch)
{
    return !query->epoch.len || slice_equal(query->epoch, epoch);
}

bool storage_history_reaches(const struct storage_history_query *query, const struct storage_offset *after,
                             struct slice epoch, const struct storage_offset *first,
                             const struct storage_offset *last)
{
    if (!storage_epoch_matches(query, epoch))
        return false;
    if (!epoch.len)
        return after == NULL;
    return after ? first->n <= after->n + 1 && after->n <= last->n : first->n <= 1;
}
