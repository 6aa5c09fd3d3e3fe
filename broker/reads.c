#include "broker/reads.h"

#include "broker/metrics.h"

#include <stdint.h>

static bool may_start(const struct reader *reader)
{
    return reader->reads->closing || (!reader->held && reader->open < reader->limit);
}

/* Puts the reader where it belongs, behind the others. */
static void queue(struct reader *reader)
{
    struct reads *reads = reader->reads;

    list_remove(&reader->link);
    if (list_empty(&reader->waiting))
        return;
    list_append(may_start(reader) ? &reads->ready : &reads->blocked, &reader->link);
}

static void go_on(struct reads *reads)
{
    if (reads->open < reads->limit && !list_empty(&reads->ready))
        loop_defer(reads->loop, &reads->task);
}

static void count_open(struct reader *reader, bool more)
{
    reader->open += more ? 1 : (size_t)-1;
    reader->reads->open += more ? 1 : (size_t)-1;
}

/* Starts the reader's oldest read. */
static void start(struct reader *reader)
{
    struct read *read = container_of(list_pop(&reader->waiting), struct read, link);

    reader->reads->waiting--;
    count_open(reader, true);
    queue(reader);
    if (read->start(read))
        return; /* the reader may be gone */
    count_open(reader, false);
    reader->reads->waiting++;
    list_prepend(&reader->waiting, &read->link);
    reader->held = true;
    list_remove(&reader->link);
    list_append(&reader->reads->blocked, &reader->link);
}

static void on_turn(struct loop_task *task)
{
    struct reads *reads = container_of(task, struct reads, task);

    while (reads->open < reads->limit && !list_empty(&reads->ready))
        start(container_of(reads->ready.next, struct reader, link));
}

void reads_init(struct reads *reads, struct loop *loop, struct metrics *metrics, size_t limit)
{
    *reads = (struct reads){.loop = loop, .metrics = metrics, .limit = limit};
    list_init(&reads->ready);
    list_init(&reads->blocked);
    loop_task_init(&reads->task, on_turn);
}

void reads_set_limit(struct reads *reads, size_t limit)
{
    reads->limit = limit;
    go_on(reads);
}

void reads_close(struct reads *reads)
{
    reads->closing = true;
    reads->limit = SIZE_MAX;
    list_splice(&reads->ready, &reads->blocked);
    on_turn(&reads->task);
    loop_cancel(&reads->task);
}

void reader_init(struct reader *reader, struct reads *reads, size_t limit)
{
    *reader = (struct reader){.reads = reads, .limit = limit};
    list_init(&reader->link);
    list_init(&reader->waiting);
}

void read_ask(struct reader *reader, struct read *read)
{
    struct reads *reads = reader->reads;
    bool first = list_empty(&reads->ready) && list_empty(&reader->waiting);

    read->reader = reader;
    list_init(&read->link);
    list_append(&reader->waiting, &read->link);
    reads->waiting++;
    if (first && may_start(reader) && reads->open < reads->limit) {
        start(reader);
        return;
    }
    reads->metrics->reads_delayed++;
    if (list_empty(&reader->link))
        queue(reader);
}

void read_done(struct read *read)
{
    struct reader *reader = read->reader;
    bool blocked = !may_start(reader);

    count_open(reader, false);
    if (blocked && may_start(reader))
        queue(reader);
    go_on(reader->reads);
}

void reader_release(struct reader *reader)
{
    if (!reader->held)
        return;
    reader->held = false;
    queue(reader);
    go_on(reader->reads);
}
