#include "tests/lib/await.h"

#include <event2/event.h>

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    struct await *await = data;

    (void)fd;
    (void)what;
    await->late = true;
}

void await_start(struct await *await, struct event_base *base, unsigned timeout_ms)
{
    struct timeval timeout = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};

    *await = (struct await){.base = base};
    await->deadline = evtimer_new(base, on_deadline, await);
    event_add(await->deadline, &timeout);
}

bool await_turn(struct await *await)
{
    if (await->late)
        return false;
    event_base_loop(await->base, EVLOOP_ONCE);
    return true;
}

void await_end(struct await *await)
{
    event_free(await->deadline);
}
