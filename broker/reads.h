/* The large reads of the storage that are open at a time: history, presence, recovery. A bounded number of them in all, few
 * for each who reads, and readers take turns: whoever asks for much waits behind whoever asks for little. */
#ifndef BROKER_READS_H
#define BROKER_READS_H

#include "base/list.h"
#include "broker/loop.h"

#include <stdbool.h>
#include <stddef.h>

struct metrics;
struct reads;

/* One read; embedded in what waits for it. */
struct read {
    struct list link; /* in reader->waiting, or alone */
    struct reader *reader;

    /* Its turn has come: asks the storage, or calls read_done() at once, which may end its reader. False: there is no room for
     * the answer yet; it waits on, and its reader is held. */
    bool (*start)(struct read *read);
};

/* Who reads: a session, or the API. */
struct reader {
    struct list link; /* in reads->ready or reads->blocked while something waits, otherwise alone */
    struct reads *reads;
    struct list waiting; /* struct read */
    size_t open;         /* started, and not done */
    size_t limit;
    bool held; /* there is no room for an answer: nothing more is started */
};

struct reads {
    struct loop *loop;
    struct metrics *metrics;
    struct list ready;   /* readers of whom something may start, by turns */
    struct list blocked; /* readers who have enough open, or no room */
    struct loop_task task;
    size_t open, waiting, limit;
    bool closing;
};

void reads_init(struct reads *reads, struct loop *loop, struct metrics *metrics, size_t limit);

/* The limit changed; what is open above it comes to its end. */
void reads_set_limit(struct reads *reads, size_t limit);

/* The storage was destroyed, or is about to be: starts all that waits, and what is asked from now on, so that it is cancelled. */
void reads_close(struct reads *reads);

/* At most `limit` reads of this reader are open at a time. */
void reader_init(struct reader *reader, struct reads *reads, size_t limit);

/* Starts the read, from inside this call when it is nobody else's turn; otherwise later. */
void read_ask(struct reader *reader, struct read *read);

/* A read that was started is over. */
void read_done(struct read *read);

/* There is room again: a reader that is held goes on. */
void reader_release(struct reader *reader);

#endif
