/* Every socket of libwebsockets has one slot, found by its descriptor. The slot holds the read event, which
 * stays with libevent from adoption to close. A write event exists only while libwebsockets wants to write,
 * so an idle connection costs nothing for it. While reading is paused the read event stays, until something
 * comes. libwebsockets clears the wish for writing before it calls back and often renews it in the callback;
 * therefore changes of it are noted, and carried out once, before the loop waits.
 *
 * Before each wait libwebsockets' timers that are due are run and the next one is made our timer; input which
 * it holds back in its own memory (decrypted by TLS, or left over from flow control) is served, since no
 * descriptor would ever announce it. */
#include "broker/lws_loop.h"

#include <assert.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <libwebsockets.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "broker/loop.h"
#include "broker/lws_loop_ops.h"

/* As many reads of one socket a turn at most, so that one sender doesn't keep the others waiting. */
enum { READS_MAX = 64 };

struct write_watch {
    struct event event;
    struct list changed; /* in lws_loop.changed when `wanted` and `added` may differ */
    struct slot *slot;
    bool wanted, added;
};

struct slot {
    struct event read;
    struct lws *wsi;           /* whose socket this is: a descriptor's next owner must not inherit it */
    struct write_watch *write; /* NULL unless writing is wanted */
    bool reading;              /* is wanted */
    bool watched;              /* the read event is added; it stays so until it fires unwanted */
    bool expect_more;          /* see lws_loop_expect_more() */
    bool blocked;              /* reading waits until the socket is writable */
};

struct lws_loop {
    struct list link; /* in `adapters` */
    struct loop *loop;
    struct loop_hook hook;
    struct lws_context *context;
    enum lws_loop_input (*input_of)(struct lws *wsi); /* NULL: all input comes from sockets */
    struct slot **slots;                              /* by descriptor */
    size_t slot_count;
    struct list changed;
    struct event timer;
    lws_usec_t timer_at;              /* when it fires, 0: not set */
    struct lws_dll2_owner *deadlines; /* the context's two lists of timers; NULL before the first wait */
};

/* libwebsockets' operations carry no pointer of ours, and its context has one only after they were first
 * called; so the adapters, one for each context of the process, are found here. */
static struct list adapters = {&adapters, &adapters};

static struct lws_loop *adapter_of(struct lws *wsi)
{
    const struct lws_context *context = lws_get_context(wsi);
    list_for_each (node, &adapters) {
        struct lws_loop *lws = container_of(node, struct lws_loop, link);
        if (lws->context == context)
            return lws;
    }
    return NULL;
}

static struct slot *slot_of(struct lws_loop *lws, evutil_socket_t fd)
{
    return fd >= 0 && (size_t)fd < lws->slot_count ? lws->slots[fd] : NULL;
}

static void serve(struct lws_loop *lws, evutil_socket_t fd, short events)
{
    struct lws_pollfd pollfd = {.fd = fd, .events = events, .revents = events};
    lws_service_fd_tsi(lws->context, &pollfd, 0);
}

static void on_readable(evutil_socket_t fd, short what, void *data);
static void on_writable(evutil_socket_t fd, short what, void *data);

static void write_watch_destroy(struct slot *slot)
{
    struct write_watch *watch = slot->write;
    if (!watch)
        return;
    list_remove(&watch->changed);
    if (watch->added)
        event_del(&watch->event);
    mem_free(watch);
    slot->write = NULL;
}

static void slot_destroy(struct lws_loop *lws, evutil_socket_t fd)
{
    struct slot *slot = slot_of(lws, fd);
    if (!slot)
        return;
    write_watch_destroy(slot);
    event_del(&slot->read); /* also when it is only active */
    mem_free(slot);
    lws->slots[fd] = NULL;
}

static bool slots_reach(struct lws_loop *lws, evutil_socket_t fd)
{
    size_t count = lws->slot_count ? lws->slot_count : 64;
    while (count <= (size_t)fd)
        count *= 2;
    if (count == lws->slot_count)
        return true;
    struct slot **slots = mem_realloc(lws->slots, count * sizeof(struct slot *));
    if (!slots)
        return false;
    memset(slots + lws->slot_count, 0, (count - lws->slot_count) * sizeof(struct slot *));
    lws->slots = slots;
    lws->slot_count = count;
    return true;
}

/* The slot of wsi's socket, made when there is none; NULL when memory is short. */
static struct slot *slot_obtain(struct lws_loop *lws, struct lws *wsi)
{
    evutil_socket_t fd = lws_get_socket_fd(wsi);
    struct slot *slot = slot_of(lws, fd);
    if (slot && slot->wsi == wsi)
        return slot;
    slot_destroy(lws, fd);
    if (!slots_reach(lws, fd))
        return NULL;
    slot = mem_calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    event_assign(&slot->read, loop_base(lws->loop), fd, EV_READ | EV_PERSIST, on_readable, lws);
    slot->wsi = wsi;
    lws->slots[fd] = slot;
    return slot;
}

/* Most pauses are over before anything comes: they cost nothing. */
static bool slot_read(struct slot *slot, bool want)
{
    if (want && !slot->watched && event_add(&slot->read, NULL) != 0)
        return false;
    slot->watched = slot->watched || want;
    slot->reading = want;
    return true;
}

static struct write_watch *write_watch_obtain(struct lws_loop *lws, struct slot *slot)
{
    if (slot->write)
        return slot->write;
    struct write_watch *watch = mem_calloc(1, sizeof *watch);
    if (!watch)
        return NULL;
    event_assign(&watch->event, loop_base(lws->loop), event_get_fd(&slot->read), EV_WRITE | EV_PERSIST, on_writable,
                 lws);
    list_init(&watch->changed);
    watch->slot = slot;
    slot->write = watch;
    return watch;
}

static void note_change(struct lws_loop *lws, struct write_watch *watch)
{
    if (list_empty(&watch->changed))
        list_append(&lws->changed, &watch->changed);
}

static bool slot_write(struct lws_loop *lws, struct slot *slot, bool want)
{
    if (!slot->write && !want)
        return true;
    struct write_watch *watch = write_watch_obtain(lws, slot);
    if (!watch)
        return false;
    watch->wanted = want;
    note_change(lws, watch);
    return true;
}

/* While reading can't go on before the socket is writable, whoever is told of input would only spin. */
static void slot_block(struct lws_loop *lws, struct slot *slot)
{
    struct write_watch *watch = write_watch_obtain(lws, slot);

    if (!watch)
        return;
    slot->blocked = true;
    note_change(lws, watch);
}

static void slot_unblock(struct lws_loop *lws, struct slot *slot)
{
    slot->blocked = false;
    note_change(lws, slot->write);
    if (slot->reading && slot_read(slot, true))
        event_active(&slot->read, EV_READ, 1);
}

/* ---- what happens on a socket ---- */

static enum lws_loop_input input_of(const struct lws_loop *lws, const struct slot *slot)
{
    return lws->input_of ? lws->input_of(slot->wsi) : LWS_LOOP_SOCKET;
}

/* Whether libwebsockets should read on at once. */
static bool reads_on(struct lws_loop *lws, struct slot *slot)
{
    enum lws_loop_input input = input_of(lws, slot);

    if (input == LWS_LOOP_BLOCKED)
        slot_block(lws, slot);
    return slot->reading && !slot->blocked && (input == LWS_LOOP_MEMORY || slot->expect_more);
}

static void read_input(struct lws_loop *lws, evutil_socket_t fd, struct slot *slot)
{
    const struct lws *wsi = slot->wsi;

    for (unsigned reads = 0; reads < READS_MAX; reads++) {
        slot->expect_more = false;
        serve(lws, fd, LWS_POLLIN);
        slot = slot_of(lws, fd);
        if (!slot || slot->wsi != wsi || !reads_on(lws, slot))
            return;
    }
    /* The others have their turn; what is in memory nobody would announce. */
    if (input_of(lws, slot) == LWS_LOOP_MEMORY)
        event_active(&slot->read, EV_READ, 1);
}

static void on_readable(evutil_socket_t fd, short what, void *data)
{
    struct lws_loop *lws = data;
    struct slot *slot = slot_of(lws, fd);

    (void)what;
    if (slot && (!slot->reading || slot->blocked)) {
        event_del(&slot->read);
        slot->watched = false;
    } else if (slot) {
        read_input(lws, fd, slot);
    }
}

void lws_loop_read(struct lws *wsi)
{
    struct lws_loop *lws = adapter_of(wsi);
    evutil_socket_t fd = lws_get_socket_fd(wsi);
    struct slot *slot = lws ? slot_of(lws, fd) : NULL;

    if (slot && slot->wsi == wsi)
        read_input(lws, fd, slot);
}

void lws_loop_expect_more(struct lws *wsi)
{
    struct lws_loop *lws = adapter_of(wsi);
    struct slot *slot = lws ? slot_of(lws, lws_get_socket_fd(wsi)) : NULL;

    if (slot)
        slot->expect_more = true;
}

static void on_writable(evutil_socket_t fd, short what, void *data)
{
    struct lws_loop *lws = data;
    struct slot *slot = slot_of(lws, fd);
    (void)what;
    if (slot && slot->blocked)
        slot_unblock(lws, slot);
    if (slot && slot->write && slot->write->wanted)
        serve(lws, fd, LWS_POLLOUT);
}

/* A connection that can't be watched would hang for ever. It is closed from libwebsockets' timers, because it
 * is in the middle of using it now. */
static void give_up(struct lws *wsi)
{
    log_error("connection dropped: its socket can't be watched", log_int("fd", lws_get_socket_fd(wsi)));
    lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
}

static void apply_write_changes(struct lws_loop *lws)
{
    struct list *node;
    while ((node = list_pop(&lws->changed))) {
        struct write_watch *watch = container_of(node, struct write_watch, changed);
        struct slot *slot = watch->slot;
        if (!watch->wanted && !slot->blocked)
            write_watch_destroy(slot);
        else if (!watch->added && event_add(&watch->event, NULL) == 0)
            watch->added = true;
        else if (!watch->added)
            give_up(slot->wsi);
    }
}

int lws_loop_on_init(struct lws_context *context, void *data, int thread)
{
    struct lws_loop *lws = data;
    assert(thread == 0);
    (void)thread;
    lws->context = context;
    return 0;
}

int lws_loop_on_accept(struct lws *wsi)
{
    struct lws_loop *lws = adapter_of(wsi);
    return lws && slot_obtain(lws, wsi) ? 0 : 1;
}

void lws_loop_on_interest(struct lws *wsi, bool start, bool read, bool write)
{
    struct lws_loop *lws = adapter_of(wsi);
    evutil_socket_t fd = lws_get_socket_fd(wsi);
    if (!lws || fd < 0)
        return;
    struct slot *slot = start ? slot_obtain(lws, wsi) : slot_of(lws, fd);
    if (!start && (!slot || slot->wsi != wsi))
        return;
    bool done = slot && (!read || slot_read(slot, start)) && (!write || slot_write(lws, slot, start));
    if (!done)
        give_up(wsi);
    else if (read && start && input_of(lws, slot) == LWS_LOOP_MEMORY)
        event_active(&slot->read, EV_READ, 1);
}

void lws_loop_on_gone(struct lws *wsi)
{
    struct lws_loop *lws = adapter_of(wsi);
    evutil_socket_t fd = lws_get_socket_fd(wsi);
    struct slot *slot = lws ? slot_of(lws, fd) : NULL;
    if (slot && slot->wsi == wsi)
        slot_destroy(lws, fd);
}

static void on_timer(evutil_socket_t fd, short what, void *data)
{
    struct lws_loop *lws = data;
    (void)fd;
    (void)what;
    lws->timer_at = 0; /* waking up was all: the hook does the rest */
}

static void set_timer(struct lws_loop *lws, lws_usec_t now, lws_usec_t wait)
{
    if (wait && now + wait == lws->timer_at)
        return;
    if (!wait) {
        if (lws->timer_at)
            event_del(&lws->timer);
        lws->timer_at = 0;
        return;
    }
    struct timeval after = {.tv_sec = wait / LWS_US_PER_SEC, .tv_usec = wait % LWS_US_PER_SEC};
    lws->timer_at = event_add(&lws->timer, &after) == 0 ? now + wait : 0;
}

static void on_probe(lws_sorted_usec_list_t *probe)
{
    (void)probe;
}

/* There is no call for "when is the next timer due", only one that wants the lists of timers. A timer knows
 * the list it is in, and lws_sul_schedule() uses the first of the two. */
static struct lws_dll2_owner *find_deadlines(struct lws_context *context)
{
    lws_sorted_usec_list_t probe = {0};
    lws_sul_schedule(context, 0, &probe, on_probe, 3600 * LWS_US_PER_SEC);
    struct lws_dll2_owner *owner = probe.list.owner;
    lws_sul_schedule(context, 0, &probe, on_probe, LWS_SET_TIMER_USEC_CANCEL);
    return owner;
}

static void before_wait(struct loop_hook *hook)
{
    struct lws_loop *lws = container_of(hook, struct lws_loop, hook);
    if (!lws->deadlines)
        lws->deadlines = find_deadlines(lws->context);

    bool held_back = lws_service_adjust_timeout(lws->context, 1000, 0) == 0;
    if (held_back) {
        _lws_plat_service_forced_tsi(lws->context, 0);
        held_back = lws_service_adjust_timeout(lws->context, 1000, 0) == 0;
    }
    lws_usec_t now = lws_now_usecs();
    lws_usec_t wait = __lws_sul_service_ripe(lws->deadlines, LWS_COUNT_PT_SUL_OWNERS, now);
    /* From 4.2 on, "held back" may also mean that a timer is due within a millisecond: that one wakes us
     * anyway. */
    if (held_back && (!wait || wait >= LWS_US_PER_MS))
        event_active(&lws->timer, EV_TIMEOUT, 1);
    else
        set_timer(lws, now, wait);
    apply_write_changes(lws);
}

static void on_library_log(int level, const char *line)
{
    struct log_field text = log_bytes("text", line, strcspn(line, "\n"));
    if (level == LLL_ERR)
        log_error("libwebsockets", text);
    else if (level == LLL_WARN)
        log_warn("libwebsockets", text);
    else
        log_debug("libwebsockets", text);
}

struct lws_loop *lws_loop_create(struct loop *loop, struct lws_context_creation_info *info)
{
    struct lws_loop *lws = mem_calloc(1, sizeof *lws);
    if (!lws) {
        log_error("libwebsockets not started: memory is short");
        return NULL;
    }
    lws->loop = loop;
    list_init(&lws->changed);
    list_append(&adapters, &lws->link);
    event_assign(&lws->timer, loop_base(loop), -1, 0, on_timer, lws);
    lws_set_log_level(LLL_ERR | LLL_WARN | LLL_NOTICE, on_library_log);

    void *loops[] = {lws};
    info->foreign_loops = loops;
    struct lws_context *context = lws_loop_bind(info) == 0 ? lws_create_context(info) : NULL;
    info->foreign_loops = NULL;
    loop_hook_add(loop, &lws->hook, before_wait);
    if (context && context == lws->context)
        return lws;

    log_error("libwebsockets not started", log_str("version", lws_get_library_version()));
    lws->context = context;
    lws_loop_destroy(lws);
    return NULL;
}

struct lws_context *lws_loop_context(struct lws_loop *lws)
{
    return lws->context;
}

void lws_loop_set_input_of(struct lws_loop *lws, enum lws_loop_input (*input_of_wsi)(struct lws *wsi))
{
    lws->input_of = input_of_wsi;
}

void lws_loop_destroy(struct lws_loop *lws)
{
    if (!lws)
        return;
    if (lws->context)
        lws_context_destroy(lws->context);
    for (size_t fd = 0; fd < lws->slot_count; fd++)
        slot_destroy(lws, (evutil_socket_t)fd);
    mem_free(lws->slots);
    event_del(&lws->timer);
    loop_hook_remove(&lws->hook);
    list_remove(&lws->link);
    mem_free(lws);
}
