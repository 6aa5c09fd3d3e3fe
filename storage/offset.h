/* The places of stored messages: offsets, epochs, and whether a history still reaches back to one.
 *
 * An offset is MS-N in decimal: when the message was stored (Unix time, never less than its predecessor's) and
 * which of its history's messages it is, counted from 1 without gaps. Both grow, so either alone orders the
 * messages; N shows what is missing in between. It is a Redis stream's entry ID as well. */
#ifndef STORAGE_OFFSET_H
#define STORAGE_OFFSET_H

#include "proto/message.h"
#include "storage/storage.h"

struct storage_offset {
    uint64_t ms, n;
};

enum { STORAGE_EPOCH_LEN = 8 };

/* False when the text is no offset. */
bool storage_offset_parse(struct slice text, struct storage_offset *offset)
    __attribute__((warn_unused_result));

/* Writes the offset, NUL-terminated; returns its length. */
size_t storage_offset_format(const struct storage_offset *offset, char out[static OFFSET_MAX + 1]);

int storage_offset_compare(const struct storage_offset *a, const struct storage_offset *b);

/* Writes a random epoch for a history that begins, NUL-terminated. */
void storage_epoch_create(char out[static STORAGE_EPOCH_LEN + 1]);

/* Whether the query's epoch, if it names one, is `epoch`. */
bool storage_epoch_matches(const struct storage_history_query *query, struct slice epoch);

/* Whether nothing stored after the query's offset (`after`, when it has one) is missing from a history of that
 * epoch which holds `first` to `last`. An empty history has an empty epoch. */
bool storage_history_reaches(const struct storage_history_query *query, const struct storage_offset *after,
                             struct slice epoch, const struct storage_offset *first,
                             const struct storage_offset *last);

#endif
