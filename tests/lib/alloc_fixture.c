#include "tests/lib/alloc_fixture.h"

#include "base/alloc.h"

#include <stdlib.h>

static struct {
    size_t live;
    size_t countdown; /* allocations until the one that fails; 0: none will */
    bool sticky;
    bool failed;
} state;

static void *resize(void *data, void *ptr, size_t size)
{
    (void)data;
    if (state.countdown == 1) {
        state.failed = true;
        if (!state.sticky)
            state.countdown = 0;
        return NULL;
    }
    if (state.countdown)
        state.countdown--;
    void *block = realloc(ptr, size);
    if (block && !ptr)
        state.live++;
    return block;
}

static void release(void *data, void *ptr)
{
    (void)data;
    state.live--;
    free(ptr);
}

void alloc_fixture_install(void)
{
    static const struct mem_hook hook = {.resize = resize, .release = release};

    state.live = 0;
    alloc_fixture_fail(0);
    mem_set_hook(&hook);
}

size_t alloc_fixture_remove(void)
{
    mem_set_hook(NULL);
    return state.live;
}

size_t alloc_fixture_live(void)
{
    return state.live;
}

static void arm(size_t n, bool sticky)
{
    state.countdown = n;
    state.sticky = sticky;
    state.failed = false;
}

void alloc_fixture_fail(size_t n)
{
    arm(n, false);
}

void alloc_fixture_fail_from(size_t n)
{
    arm(n, true);
}

bool alloc_fixture_failed(void)
{
    return state.failed;
}
