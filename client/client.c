/* Happy path: connect → hello → online; subscriptions are restored, the queue is flushed.
 *
 * When the connection ends, went_down() decides from the close code whether to come back and when; what was sent
 * without an answer is repeated or reported lost. Every failure on the way to hello takes the same path. */
#include "base/alloc.h"
#include "base/clock.h"
#include "client/client_internal.h"

#include <event2/event.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const char subprotocol[] = "switchboard.json.v1";

static void on_ws_message(enum ws_opcode opcode, const char *bytes, size_t len, void *data);
static void on_ws_end(const struct ws_end *end, void *data);

static void set_timer(struct swb_client *client, unsigned ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    event_add(client->timer, &delay);
}

static void tell_state(struct swb_client *client, const struct swb_status *status)
{
    client->state = status->state;
    if (client->options.on_state)
        client->options.on_state(client, status, client->options.data);
}

/* ---- going down ---------------------------------------------------------------------------------------- */

/* docs/protocol.md, Close codes. */
static bool close_allows_reconnect(int code)
{
    if (code >= 4000 || code < 1000)
        return code < 4500;
    return code == 1000 || code == 1001 || code == 1005 || code == 1006 || (code >= 1011 && code <= 1014);
}

static bool status_allows_reconnect(int status)
{
    enum { REQUEST_TIMEOUT = 408, TOO_EARLY = 425, TOO_MANY = 429 };

    return status == 0 || status >= 500 || status == REQUEST_TIMEOUT || status == TOO_EARLY ||
           status == TOO_MANY;
}

static unsigned next_delay(struct swb_client *client, const struct ws_end *end)
{
    uint32_t random = 0;

    if (RAND_bytes((unsigned char *)&random, sizeof random) != 1)
        random = (uint32_t)clock_monotonic_us();
    unsigned delay = backoff_next(&client->backoff, random);
    if (client->hinted)
        return client->hint;
    /* What the server asks for, and up to a half of it more, so that not all come back at once. */
    if (end->retry_after)
        return end->retry_after * 1000 + random % (end->retry_after * 500 + 1);
    return delay;
}

static void went_down(struct swb_client *client, const struct ws_end *end)
{
    bool stopped = client->state == SWB_STOPPED;
    struct swb_status status = {.state = stopped ? SWB_STOPPED : SWB_DOWN,
                                .close_code = end->close_code,
                                .http_status = end->http_status,
                                .reason = end->reason};

    ws_client_destroy(client->ws);
    client->ws = NULL;
    event_del(client->timer);
    if (!stopped) {
        status.reconnect = client->wanted && !client->options.no_reconnect && !client->hint_stop &&
                           close_allows_reconnect(end->close_code) &&
                           status_allows_reconnect(end->http_status);
        client->wanted = status.reconnect;
        if (status.reconnect) {
            status.delay = next_delay(client, end);
            set_timer(client, status.delay);
        }
    }
    client->hinted = client->hint_stop = client->bad_frame = false;
    tell_state(client, &status);
    if (!client->doomed)
        requests_cancel_all(client);
    if (!client->doomed)
        calls_lost(client);
    if (!client->doomed && !client->wanted)
        calls_fail_all(client, SWB_OFFLINE);
}

static void fail(struct swb_client *client, const char *reason)
{
    went_down(client, &(struct ws_end){.reason = reason});
}

void client_bad_frame(struct swb_client *client, const char *what)
{
    client->bad_frame = true;
    if (client->ws)
        ws_client_close(client->ws, 1002, what);
}

/* ---- coming up ----------------------------------------------------------------------------------------- */

static void write_escaped(struct buffer *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        bool plain = (*at >= '0' && *at <= '9') || (*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z') ||
                     *at == '-' || *at == '_' || *at == '.' || *at == '~';
        buffer_printf(out, plain ? "%c" : "%%%02X", *at);
    }
}

/* Appends the URL's own query, without its "since" when that is known better. Returns what begins the next argument. */
static const char *write_query(const char *query, bool without_since, struct buffer *out)
{
    static const char since[] = "since";
    const char *before = "?";

    while (query) {
        size_t len = strcspn(query, "&"), name = strcspn(query, "=&");
        if (!without_since || name != sizeof since - 1 || memcmp(query, since, name) != 0) {
            buffer_printf(out, "%s%.*s", before, (int)len, query);
            before = "&";
        }
        query = query[len] ? query + len + 1 : NULL;
    }
    return before;
}

/* The path of the next connection: what the session's own address missed is asked for in the URL. */
static const char *write_path(struct swb_client *client, struct buffer *out)
{
    bool recovers = client->own.known && !client->options.no_recovery;

    buffer_append_text(out, client->url.path);
    const char *before = write_query(client->url.query, recovers, out);
    if (recovers) {
        buffer_printf(out, "%ssince=", before);
        if (client->own.epoch && client->own.offset) {
            write_escaped(out, client->own.epoch);
            buffer_append_text(out, "%3A");
            write_escaped(out, client->own.offset);
        }
    }
    return buffer_text(out);
}

static void on_ws_open(void *data)
{
    (void)data; /* the broker speaks first */
}

static void on_ws_drained(void *data)
{
    struct swb_client *client = data;

    client_enter(client);
    calls_flush(client);
    client_leave(client);
}

static const struct ws_handler handler = {
    .on_open = on_ws_open, .on_message = on_ws_message, .on_drained = on_ws_drained, .on_end = on_ws_end};

static void begin_connection(struct swb_client *client)
{
    struct buffer path;

    tell_state(client, &(struct swb_status){.state = SWB_CONNECTING, .reason = ""});
    if (client->doomed || client->state != SWB_CONNECTING || client->ws)
        return;
    buffer_init(&path, 0);
    const struct ws_options options = {
        .url = &client->url,
        .path = write_path(client, &path),
        .subprotocol = subprotocol,
        .agent = client->options.agent ? client->options.agent : "libswitchboard/" SWITCHBOARD_VERSION,
        .token = client->options.token,
        .max_message = client->options.max_message,
        .timeout = client->options.connect_timeout,
    };
    client->ws = options.path ? ws_client_create(client->shared, &options, &handler, client) : NULL;
    buffer_close(&path);
    if (client->ws)
        set_timer(client, client->options.connect_timeout);
    else
        fail(client, "memory is short");
}

static void on_timer(evutil_socket_t fd, short what, void *data)
{
    struct swb_client *client = data;

    (void)fd;
    (void)what;
    client_enter(client);
    if (client->ws) {
        bool another = client->moved;
        fail(client, another ? "another connection is wanted" : "connecting took too long");
        client->wanted = client->wanted || (another && client->state != SWB_STOPPED);
    }
    if (!client->doomed && client->wanted && !client->ws &&
        (client->moved || !event_pending(client->timer, EV_TIMEOUT, NULL))) {
        client->moved = false;
        begin_connection(client);
    }
    client_leave(client);
}

static void read_hello(struct swb_client *client, json_t *root)
{
    json_t *limits = json_object_get(root, "limits");
    const char *session = json_text(root, "session"), *conn = json_text(root, "conn");
    const char *instance = json_text(root, "instance"), *version = json_text(root, "version");

    json_decref(client->hello_root);
    client->hello_root = json_incref(root);
    client->hello = (struct swb_hello){
        .session = session ? session : "",
        .conn = conn ? conn : "",
        .address = json_text(root, "address"),
        .instance = instance ? instance : "",
        .version = version ? version : "",
        .time = json_number(root, "time"),
        .ping_interval = (unsigned)json_number(root, "ping_interval"),
        .ping_timeout = (unsigned)json_number(root, "ping_timeout"),
        .limits = {.message = json_number(limits, "message"),
                   .name = json_number(limits, "name"),
                   .subscriptions = (unsigned)json_number(limits, "subscriptions"),
                   .requests = (unsigned)json_number(limits, "requests"),
                   .timeout = (unsigned)json_number(limits, "timeout")},
    };
}

/* What became of the messages to the own address that were missed. */
static void tell_own_recovery(struct swb_client *client, json_t *root)
{
    json_t *recovered = json_object_get(root, "recovered");
    const struct swb_recovery recovery = {.address = client->hello.address,
                                          .recovered = json_is_true(recovered),
                                          .text = swb_error_text(SWB_OK)};

    if (!json_is_boolean(recovered) || !client->hello.address)
        return;
    if (!recovery.recovered && !json_text(root, "offset"))
        position_set(&client->own, NULL, NULL); /* nothing is left: what is stored next is the beginning */
    if (client->options.on_recovery)
        client->options.on_recovery(client, &recovery, client->options.data);
}

void client_hello(struct swb_client *client, json_t *root)
{
    enum { SLACK_MS = 1000 };

    if (client->state != SWB_CONNECTING)
        return;
    read_hello(client, root);
    event_del(client->timer);
    client->backoff.tries = 0;
    if (client->hello.ping_interval)
        ws_client_set_silence(client->ws,
                              client->hello.ping_interval + client->hello.ping_timeout + SLACK_MS);
    client->state = SWB_ONLINE;
    subscriptions_restore(client);
    tell_state(client, &(struct swb_status){.state = SWB_ONLINE, .hello = &client->hello, .reason = ""});
    if (!client->doomed)
        tell_own_recovery(client, root);
    if (!client->doomed)
        calls_flush(client);
}

/* ---- the connection's callbacks ------------------------------------------------------------------------ */

static void on_ws_message(enum ws_opcode opcode, const char *bytes, size_t len, void *data)
{
    struct swb_client *client = data;
    struct ws_client *ws = client->ws;
    const char *end = bytes + len;

    client_enter(client);
    if (opcode != WS_TEXT)
        client_bad_frame(client, "the broker sent a binary message");
    for (const char *line = bytes; line < end && client->ws == ws && !client->bad_frame && !client->doomed &&
                                   client->state != SWB_STOPPED;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *line_end = newline ? newline : end;
        if (line_end > line)
            frame_handle(client, slice_from(line, (size_t)(line_end - line)));
        line = line_end + 1;
    }
    client_leave(client);
}

static void on_ws_end(const struct ws_end *end, void *data)
{
    struct swb_client *client = data;
    /* The structure dies with the connection. */
    char *reason = mem_strdup(end->reason);
    struct ws_end copy = *end;

    client_enter(client);
    copy.reason = reason ? reason : "";
    if (client->bad_frame)
        copy.reason = "the broker sent what is no frame";
    went_down(client, &copy);
    client_leave(client);
    mem_free(reason);
}

/* ---- stop ---------------------------------------------------------------------------------------------- */

static void on_stop(evutil_socket_t fd, short what, void *data)
{
    struct swb_client *client = data;
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof count) < 0 || client->state == SWB_STOPPED)
        return;
    client_enter(client);
    client->wanted = false;
    client->state = SWB_STOPPED;
    event_del(client->timer);
    if (client->ws)
        ws_client_close(client->ws, 1000, "normal"); /* on_ws_end() goes on */
    calls_fail_all(client, SWB_CANCELLED);
    if (!client->doomed && !client->ws)
        fail(client, "stopped");
    client_leave(client);
}

void swb_client_stop(struct swb_client *client)
{
    const uint64_t one = 1;
    ssize_t done = write(client->stop_fd, &one, sizeof one);

    (void)done; /* it fails only when 2^64 - 2 stops are pending */
}

/* ---- life ---------------------------------------------------------------------------------------------- */

int swb_client_connect(struct swb_client *client, const char *text)
{
    struct url url;

    if (client->state == SWB_STOPPED)
        return SWB_CANCELLED;
    if (!text)
        text = getenv("SWITCHBOARD_URL");
    const char *wrong = text ? url_parse(text, "/connect", &url) : "no URL is given";
    if (wrong)
        return strcmp(wrong, "memory is short") == 0 ? SWB_NO_MEMORY : SWB_BAD_REQUEST;
    if (client->has_url)
        url_close(&client->url);
    client->url = url;
    client->has_url = true;
    client->wanted = client->moved = true;
    client->backoff.tries = 0;
    position_close(&client->own); /* it may be another address now */
    set_timer(client, 0);
    return SWB_OK;
}

enum swb_state swb_client_state(const struct swb_client *client)
{
    return client->state;
}

const struct swb_hello *swb_client_hello(const struct swb_client *client)
{
    return client->hello_root ? &client->hello : NULL;
}

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
    struct swb_client *client = data;

    (void)fd;
    (void)what;
    client_enter(client);
    calls_on_deadline(client);
    client_leave(client);
}

static bool header_safe(const char *text)
{
    for (; text && *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static unsigned or_default(unsigned value, unsigned otherwise)
{
    return value ? value : otherwise;
}

static bool copy_options(struct swb_client *client, const struct swb_options *options)
{
    enum { CONNECT_MS = 10000, CALL_MS = 10000, CALLS = 4096, QUEUE = 8 << 20, MESSAGE = 16 << 20 };
    struct swb_options *copy = &client->options;
    struct swb_options given = {.size = sizeof given};

    if (options)
        memcpy(&given, options, options->size < sizeof given ? options->size : sizeof given);
    if (!given.size || !header_safe(given.token) || !header_safe(given.agent))
        return false;
    *copy = given;
    copy->token = mem_strdup(given.token);
    copy->ca_file = mem_strdup(given.ca_file);
    copy->agent = mem_strdup(given.agent);
    copy->connect_timeout = or_default(given.connect_timeout, CONNECT_MS);
    copy->call_timeout = or_default(given.call_timeout, CALL_MS);
    copy->max_calls = or_default(given.max_calls, CALLS);
    copy->max_queue_bytes = given.max_queue_bytes ? given.max_queue_bytes : QUEUE;
    copy->max_message = given.max_message ? given.max_message : MESSAGE;
    return !copy->token == !given.token && !copy->ca_file == !given.ca_file && !copy->agent == !given.agent;
}

static bool create_events(struct swb_client *client, struct event_base *base)
{
    client->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->stop_fd < 0)
        return false;
    client->stopper = event_new(base, client->stop_fd, EV_READ | EV_PERSIST, on_stop, client);
    client->timer = evtimer_new(base, on_timer, client);
    client->deadline = evtimer_new(base, on_deadline, client);
    return client->stopper && client->timer && client->deadline && event_add(client->stopper, NULL) == 0;
}

static struct swb_client *create(struct event_base *base, struct ws_shared *shared,
                                 const struct swb_options *options)
{
    struct swb_client *client = mem_calloc(1, sizeof *client);

    if (!client)
        return NULL;
    client->state = SWB_DOWN;
    client->stop_fd = -1;
    client->deadline_at = UINT64_MAX;
    list_init(&client->queue);
    list_init(&client->sent);
    list_init(&client->ending);
    list_init(&client->subscriptions);
    list_init(&client->requests);
    map_init(&client->open);
    buffer_init(&client->frame, 0);
    ws_shared_init(&client->own_shared, base);
    client->shared = shared ? shared : &client->own_shared;
    if (copy_options(client, options) && create_events(client, base)) {
        client->own_shared.ca_file = client->options.ca_file;
        client->own_shared.insecure = client->options.insecure;
        return client;
    }
    swb_client_destroy(client);
    return NULL;
}

struct swb_client *swb_client_create(struct event_base *base, const struct swb_options *options)
{
    return create(base, NULL, options);
}

struct swb_client *client_create_shared(struct ws_shared *shared, const struct swb_options *options)
{
    return create(shared->base, shared, options);
}

static void release_event(struct event *event)
{
    if (event)
        event_free(event);
}

static void release(struct swb_client *client)
{
    struct event_base *own_base = client->own_base;

    ws_shared_close(&client->own_shared);
    release_event(client->stopper);
    release_event(client->timer);
    release_event(client->deadline);
    if (client->stop_fd >= 0)
        close(client->stop_fd);
    if (client->has_url)
        url_close(&client->url);
    map_close(&client->open);
    buffer_close(&client->frame);
    position_close(&client->own);
    json_decref(client->hello_root);
    mem_free((char *)client->options.token);
    mem_free((char *)client->options.ca_file);
    mem_free((char *)client->options.agent);
    mem_free(client->problem);
    mem_free(client);
    if (own_base)
        event_base_free(own_base);
}

void client_enter(struct swb_client *client)
{
    client->busy++;
}

void client_leave(struct swb_client *client)
{
    if (--client->busy == 0 && client->doomed)
        release(client);
}

void swb_client_destroy(struct swb_client *client)
{
    if (!client || client->doomed)
        return;
    client_enter(client);
    client->doomed = true;
    client->wanted = false;
    client->state = SWB_STOPPED;
    ws_client_destroy(client->ws);
    client->ws = NULL;
    requests_orphan(client);
    calls_fail_all(client, SWB_CANCELLED);
    while (!list_empty(&client->subscriptions))
        subscription_destroy(container_of(client->subscriptions.next, struct subscription, link));
    if (client->timer)
        event_del(client->timer);
    if (client->deadline)
        event_del(client->deadline);
    if (client->stopper)
        event_del(client->stopper);
    client_leave(client);
}
