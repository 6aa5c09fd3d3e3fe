/* Waiting for a condition while an event loop runs, without sleeping. */
#ifndef TESTS_LIB_AWAIT_H
#define TESTS_LIB_AWAIT_H

#include <stdbool.h>

struct event;
struct event_base;

struct await {
    struct event_base *base;
    struct event *deadline;
    bool late;
};

void await_start(struct await *await, struct event_base *base, unsigned timeout_ms);
bool await_turn(struct await *await); /* runs the loop until something happened; false past the deadline */
void await_end(struct await *await);

/* Runs the loop until `condition` holds; true when it did within `timeout_ms`. */
#define AWAIT_FOR(event_base, timeout_ms, condition)                                                         \
    __extension__({                                                                                          \
        struct await await_;                                                                                 \
        await_start(&await_, (event_base), (timeout_ms));                                                    \
        while (!(condition) && await_turn(&await_))                                                          \
            ;                                                                                                \
        await_end(&await_);                                                                                  \
        (condition);                                                                                         \
    })

/* The same, and the test fails when it never does. */
#define AWAIT(event_base, condition)                                                                         \
    do {                                                                                                     \
        if (!AWAIT_FOR((event_base), 20000, (condition)))                                                    \
            fail_msg("never came true: %s", #condition);                                                     \
    } while (0)

#endif
