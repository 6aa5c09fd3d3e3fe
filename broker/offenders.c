#include "broker/offenders.h"

enum { PROBES = 8 };

/* FNV-1a: one who makes two names share a place only shortens what the log says about himself. */
static uint64_t hash(uint64_t value, struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        value = (value ^ (unsigned char)text.data[i]) * UINT64_C(0x100000001b3);
    return (value ^ 0xff) * UINT64_C(0x100000001b3);
}

/* The one with this key; else one that is free, or whose minute is over; else the shared one. */
static struct offender *find(struct offenders *offenders, uint64_t key, uint64_t now_ms)
{
    struct offender *place = NULL;

    for (size_t i = 0; i < PROBES; i++) {
        struct offender *at = &offenders->table[(key + i) % OFFENDERS_MAX];
        if (at->key == key)
            return at;
        if (!place && (!at->key || at->until_ms <= now_ms))
            place = at;
    }
    if (!place)
        return &offenders->table[OFFENDERS_MAX];
    /* What was left out about the former one is told with a line of the others. */
    offenders->table[OFFENDERS_MAX].left_out += place->left_out;
    *place = (struct offender){.key = key};
    return place;
}

bool offenders_may_log(struct offenders *offenders, struct slice name, struct slice from, uint64_t now_ms,
                       uint64_t *left_out)
{
    struct offender *one = find(offenders, hash(hash(UINT64_C(0xcbf29ce484222325), name), from) | 1, now_ms);

    *left_out = one->left_out;
    if (one->until_ms > now_ms) {
        one->left_out++;
        return false;
    }
    one->left_out = 0;
    one->until_ms = now_ms + OFFENDERS_WINDOW_MS;
    return true;
}
