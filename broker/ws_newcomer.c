/* A connection from its acceptance until it is a session, or was answered.
 *
 *     TLS      the handshake of TLS, where TLS is served
 *     HEAD     the request's head comes, in whatever pieces
 *     ANSWER   it is answered by ourselves
 *     LINGER   the answer is sent; what the client still sends is read and thrown away, or the answer would be lost with the
 *              reset that unread bytes cause
 *
 * A whole head is judged once (ws_admission.c). A WebSocket leaves for ws_connection.c, with its descriptor; everything else is
 * answered and closed: one request, one connection. There is one deadline, from acceptance to the end of the head, and
 * nothing that a client sends prolongs it. When there are too many newcomers, the one that has been silent for longest goes;
 * who has begun to speak is never put out for somebody else, so when none is silent, the one who comes last is refused. */
#include "base/alloc.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/listener.h"
#include "broker/metrics.h"
#include "broker/tls.h"
#include "broker/ws_internal.h"
#include "proto/errors.h"
#include "web/assets.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    LINGER_MS = 1000,
    ANSWER_MS = 10000, /* for the answer to be taken */
    READS_MAX = 8,     /* of one connection a turn, so that one that floods us leaves the others their turn */
};

enum newcomer_state { NEWCOMER_TLS, NEWCOMER_HEAD, NEWCOMER_ANSWER, NEWCOMER_LINGER };

struct newcomer {
    struct list link; /* in one of server->newcomers */
    struct ws_server *server;
    struct event event;
    short waiting_for; /* EV_READ or EV_WRITE */
    bool silent;       /* nothing came of it yet */
    int fd;
    SSL *tls; /* owned; NULL: plain */
    enum newcomer_state state;
    uint64_t deadline_ms; /* monotonic; of the head, then of the answer */
    struct buffer head;   /* what came, when it came in pieces */
    size_t seen;          /* how much of it http_head_find_end() has looked at */
    size_t charged;       /* to the budget */
    struct buffer answer;
    const struct web_asset *body; /* sent behind `answer`; NULL: none */
    size_t sent;                  /* of both */
    struct address_share *share;
    struct sockaddr_storage address;
    socklen_t address_len;
};

static void on_event(evutil_socket_t fd, short what, void *data);

/* ---- life ---- */

static void charge(struct newcomer *newcomer, size_t bytes)
{
    struct budget *budget = newcomer->server->options.budget;

    budget_release(budget, BUDGET_HANDSHAKE, newcomer->charged);
    budget_charge(budget, BUDGET_HANDSHAKE, bytes);
    newcomer->charged = bytes;
}

/* Leaves the descriptor, and TLS, to whoever has taken them. */
static void newcomer_free(struct newcomer *newcomer)
{
    charge(newcomer, 0);
    event_del(&newcomer->event);
    list_remove(&newcomer->link);
    newcomer->server->newcomer_count--;
    buffer_close(&newcomer->head);
    buffer_close(&newcomer->answer);
    mem_free(newcomer);
}

static void newcomer_drop(struct newcomer *newcomer)
{
    int fd = newcomer->fd;

    SSL_free(newcomer->tls);
    address_share_release(newcomer->share);
    newcomer_free(newcomer);
    close(fd);
}

/* Each list is sorted by its members' deadlines. */
static void set_timer(struct ws_server *server)
{
    uint64_t now = clock_monotonic_ms();
    uint64_t next = UINT64_MAX;

    for (size_t i = 0; i < NEWCOMER_LISTS; i++) {
        if (list_empty(&server->newcomers[i]))
            continue;
        const struct newcomer *first = container_of(server->newcomers[i].next, struct newcomer, link);
        next = first->deadline_ms < next ? first->deadline_ms : next;
    }
    if (next == UINT64_MAX)
        return;
    uint64_t wait = next > now ? next - now : 0;
    struct timeval after = {.tv_sec = (time_t)(wait / 1000), .tv_usec = (suseconds_t)(wait % 1000 * 1000)};
    event_add(server->newcomer_timer, &after);
}

/* Behind all whose time is over earlier. The place is near the end: who is moved is mostly younger than those there. */
static void enlist(struct newcomer *newcomer, enum newcomer_list list)
{
    struct list *at = newcomer->server->newcomers[list].prev;

    while (at != &newcomer->server->newcomers[list] &&
           container_of(at, struct newcomer, link)->deadline_ms > newcomer->deadline_ms)
        at = at->prev;
    list_remove(&newcomer->link);
    list_prepend(at, &newcomer->link);
    set_timer(newcomer->server);
}

static void set_state(struct newcomer *newcomer, enum newcomer_state state, uint64_t time_ms)
{
    newcomer->state = state;
    newcomer->deadline_ms = clock_monotonic_ms() + time_ms;
    enlist(newcomer, state == NEWCOMER_LINGER   ? NEWCOMERS_LINGERING
                     : state == NEWCOMER_ANSWER ? NEWCOMERS_ANSWERED
                                                : NEWCOMERS_SILENT);
}

static void set_speaking(struct newcomer *newcomer)
{
    newcomer->silent = false;
    enlist(newcomer, NEWCOMERS_SPEAKING);
}

static bool wait_for(struct newcomer *newcomer, short what)
{
    if (newcomer->waiting_for == what)
        return true;
    event_del(&newcomer->event);
    event_assign(&newcomer->event, loop_base(newcomer->server->options.loop), newcomer->fd,
                 (short)(what | EV_PERSIST), on_event, newcomer);
    newcomer->waiting_for = what;
    return event_add(&newcomer->event, NULL) == 0;
}

/* ---- bytes ---- */

/* Bytes, 0 at the end, or -1; with EAGAIN the event is set for when to try again. */
static ssize_t result_of(struct newcomer *newcomer, ssize_t result)
{
    if (result >= 0)
        return result;
    errno = result == TLS_FAILED ? ECONNRESET : EAGAIN;
    if (result != TLS_FAILED && !wait_for(newcomer, result == TLS_WANTS_WRITE ? EV_WRITE : EV_READ))
        errno = ENOMEM;
    return -1;
}

static ssize_t newcomer_read(struct newcomer *newcomer, void *out, size_t len)
{
    if (newcomer->tls)
        return result_of(newcomer, tls_read(newcomer->tls, out, len));
    ssize_t got = recv(newcomer->fd, out, len, MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? result_of(newcomer, TLS_WANTS_READ) : got;
}

static ssize_t newcomer_write(struct newcomer *newcomer, const void *data, size_t len)
{
    if (newcomer->tls)
        return result_of(newcomer, tls_write(newcomer->tls, data, len));
    ssize_t sent = send(newcomer->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 && (errno == EAGAIN || errno == EINTR) ? result_of(newcomer, TLS_WANTS_WRITE) : sent;
}

/* ---- the answer ---- */

static const char *status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } texts[] = {{200, "OK"}, {304, "Not Modified"}, {400, "Bad Request"}, {404, "Not Found"}, {405, "Method Not Allowed"},
                 {408, "Request Timeout"}, {414, "URI Too Long"}, {426, "Upgrade Required"},
                 {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
                 {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"}};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "Error";
}

static void linger(struct newcomer *newcomer)
{
    for (unsigned i = 0; i < READS_MAX; i++) {
        ssize_t got = newcomer_read(newcomer, newcomer->server->scratch, WS_SCRATCH_SIZE);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            newcomer_drop(newcomer);
            return;
        }
    }
}

static void end_answer(struct newcomer *newcomer)
{
    if (newcomer->tls)
        tls_end(newcomer->tls);
    shutdown(newcomer->fd, SHUT_WR);
    set_state(newcomer, NEWCOMER_LINGER, LINGER_MS);
    if (!wait_for(newcomer, EV_READ))
        newcomer_drop(newcomer);
    else
        linger(newcomer);
}

/* Sends as much as the socket takes. */
static void send_answer(struct newcomer *newcomer)
{
    const struct buffer *head = &newcomer->answer;
    size_t body = newcomer->body ? newcomer->body->len : 0;

    while (newcomer->sent < head->len + body) {
        size_t at = newcomer->sent;
        bool in_head = at < head->len;
        ssize_t sent = in_head ? newcomer_write(newcomer, head->data + at, head->len - at)
                               : newcomer_write(newcomer, newcomer->body->data + (at - head->len), head->len + body - at);
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent <= 0) {
            newcomer_drop(newcomer);
            return;
        }
        newcomer->sent += (size_t)sent;
    }
    end_answer(newcomer);
}

static void date(char out[static 40])
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm utc;

    strftime(out, 40, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &utc));
}

static void write_answer(struct buffer *out, const struct ws_verdict *verdict)
{
    const struct web_asset *asset = verdict->asset;
    char now[40];

    date(now);
    buffer_printf(out, "HTTP/1.1 %u %s\r\nserver: switchboard\r\ndate: %s\r\nconnection: close\r\n", verdict->status,
                  status_text(verdict->status), now);
    if (verdict->status != 304)
        buffer_printf(out, "content-type: %s\r\ncontent-length: %zu\r\n",
                      asset ? asset->content_type : "text/plain; charset=utf-8",
                      asset ? asset->len : strlen(verdict->text) + 1);
    if (asset)
        buffer_printf(out, "etag: %s\r\n", asset->etag);
    buffer_printf(out, "%s\r\n", verdict->headers);
    if (!asset && !verdict->only_head)
        buffer_printf(out, "%s\n", verdict->text);
}

static void answer(struct newcomer *newcomer, const struct ws_verdict *verdict)
{
    write_answer(&newcomer->answer, verdict);
    newcomer->body = verdict->status == 304 || verdict->only_head ? NULL : verdict->asset;
    set_state(newcomer, NEWCOMER_ANSWER, ANSWER_MS);
    if (newcomer->answer.failed)
        newcomer_drop(newcomer);
    else
        send_answer(newcomer);
}

static void refuse(struct newcomer *newcomer, unsigned status, const char *text)
{
    const struct http_problem problem = {status, text};
    struct ws_verdict verdict;

    ws_admission_refuse(newcomer->server, &problem, &verdict);
    answer(newcomer, &verdict);
}

/* ---- the head ---- */

static void admit(struct newcomer *newcomer, const struct ws_verdict *verdict, struct slice early)
{
    struct ws_server *server = newcomer->server;
    SSL *tls = newcomer->tls;
    struct address_share *share = newcomer->share;
    int fd = newcomer->fd;
    char text[80];
    struct slice remote = slice_from(
        text, listener_format((const struct sockaddr *)&newcomer->address, newcomer->address_len, text, sizeof text));

    /* The verdict and the early bytes may point into what is freed with it. */
    event_del(&newcomer->event);
    ws_connection_start(server, verdict, fd, tls, share, early, remote);
    newcomer_free(newcomer);
}

static void judge(struct newcomer *newcomer, struct slice input)
{
    struct http_head head;
    struct http_problem problem;
    struct ws_verdict verdict;

    if (!http_head_parse(input, &head, &problem)) {
        ws_admission_refuse(newcomer->server, &problem, &verdict);
        answer(newcomer, &verdict);
        return;
    }
    ws_admission_judge(newcomer->server, &head, &verdict);
    if (verdict.status == 101)
        admit(newcomer, &verdict, slice_from(input.data + head.len, input.len - head.len));
    else
        answer(newcomer, &verdict);
}

/* Something more of the head came. False when the newcomer is no longer reading a head. */
static bool take(struct newcomer *newcomer, const void *data, size_t len)
{
    size_t limit = newcomer->server->config->head_limit;
    struct slice input = slice_from(data, len);
    struct http_problem problem;

    if (newcomer->head.len) {
        if (!buffer_append(&newcomer->head, data, len)) {
            refuse(newcomer, 503, "out of memory, try again later");
            return false;
        }
        input = slice_from(newcomer->head.data, newcomer->head.len);
    }
    switch (http_head_find_end(input, limit, &newcomer->seen, &problem)) {
    case HTTP_HEAD_WHOLE:
        judge(newcomer, input);
        return false;
    case HTTP_HEAD_BAD:
        refuse(newcomer, problem.status, problem.text);
        return false;
    case HTTP_HEAD_INCOMPLETE:
        break;
    }
    if (!newcomer->head.len && !buffer_append(&newcomer->head, data, len)) {
        refuse(newcomer, 503, "out of memory, try again later");
        return false;
    }
    charge(newcomer, sizeof *newcomer + BUDGET_OVERHEAD + newcomer->head.capacity);
    return true;
}

static void read_head(struct newcomer *newcomer)
{
    struct ws_server *server = newcomer->server;

    for (;;) {
        size_t room = server->config->head_limit - newcomer->head.len;
        ssize_t got = newcomer_read(newcomer, server->scratch, room < WS_SCRATCH_SIZE ? room : WS_SCRATCH_SIZE);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got == 0 && newcomer->head.len) {
            refuse(newcomer, 400, "the request is not complete");
            return;
        }
        if (got <= 0) {
            newcomer_drop(newcomer);
            return;
        }
        if (!take(newcomer, server->scratch, (size_t)got))
            return;
    }
}

/* ---- TLS ---- */

static void refuse_plain(struct newcomer *newcomer)
{
    SSL_free(newcomer->tls);
    newcomer->tls = NULL;
    refuse(newcomer, 400, "TLS is spoken on this port: use https or wss");
}

static void accept_tls(struct newcomer *newcomer)
{
    bool http;
    ssize_t done = result_of(newcomer, tls_accept(newcomer->tls, &http));

    if (done > 0) {
        newcomer->state = NEWCOMER_HEAD;
        if (wait_for(newcomer, EV_READ))
            read_head(newcomer);
        else
            newcomer_drop(newcomer);
    } else if (http) {
        refuse_plain(newcomer);
    } else if (done == 0 || errno != EAGAIN) {
        newcomer->server->options.metrics->tls_failed++;
        newcomer_drop(newcomer);
    }
}

/* ---- events ---- */

static void on_event(evutil_socket_t fd, short what, void *data)
{
    struct newcomer *newcomer = data;

    (void)fd;
    (void)what;
    if (newcomer->silent)
        set_speaking(newcomer);
    switch (newcomer->state) {
    case NEWCOMER_TLS:
        accept_tls(newcomer);
        break;
    case NEWCOMER_HEAD:
        read_head(newcomer);
        break;
    case NEWCOMER_ANSWER:
        send_answer(newcomer);
        break;
    case NEWCOMER_LINGER:
        linger(newcomer);
        break;
    }
}

static void time_out(struct newcomer *newcomer)
{
    newcomer->server->options.metrics->handshakes_timed_out += newcomer->state < NEWCOMER_ANSWER;
    if (newcomer->state == NEWCOMER_HEAD && newcomer->head.len)
        refuse(newcomer, 408, "the request took too long");
    else
        newcomer_drop(newcomer);
}

void ws_newcomers_on_timer(evutil_socket_t fd, short what, void *data)
{
    struct ws_server *server = data;
    uint64_t now = clock_monotonic_ms();

    (void)fd;
    (void)what;
    for (size_t i = 0; i < NEWCOMER_LISTS; i++) {
        while (!list_empty(&server->newcomers[i])) {
            struct newcomer *first = container_of(server->newcomers[i].next, struct newcomer, link);
            if (first->deadline_ms > now)
                break;
            time_out(first);
        }
    }
    set_timer(server);
}

void ws_newcomers_drop_all(struct ws_server *server)
{
    for (size_t i = 0; i < NEWCOMER_LISTS; i++)
        while (!list_empty(&server->newcomers[i]))
            newcomer_drop(container_of(server->newcomers[i].next, struct newcomer, link));
}

/* ---- acceptance ---- */

/* Drops one that is answered and does not go, else the one that has been silent for longest. False when there is none. What a
 * silent one sent may not have been read yet. */
static bool make_room(struct ws_server *server)
{
    struct list *lingering = &server->newcomers[NEWCOMERS_LINGERING];
    struct list *silent = &server->newcomers[NEWCOMERS_SILENT];

    if (!list_empty(lingering)) {
        newcomer_drop(container_of(lingering->next, struct newcomer, link));
        return true;
    }

    while (!list_empty(silent)) {
        struct newcomer *oldest = container_of(silent->next, struct newcomer, link);
        char byte;
        if (recv(oldest->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
            newcomer_drop(oldest);
            return true;
        }
        set_speaking(oldest);
    }
    return false;
}

/* Whether there is no place for another one. */
static bool is_crowded(struct ws_server *server)
{
    bool crowded = server->newcomer_count >= server->options.max_handshakes;

    if (crowded && !server->crowded)
        log_warn("connections dropped", log_str("reason", "handshakes_limit is reached"),
                 log_int("handshakes_limit", (int64_t)server->options.max_handshakes));
    server->crowded = crowded;
    if (!crowded)
        return false;
    server->options.metrics->refused_handshakes++;
    return !make_room(server);
}

/* Whom there is no room for is told so if one send can do it; within TLS that would take a handshake. */
static void turn_away(struct ws_server *server, int fd, unsigned status, const char *text)
{
    const struct http_problem problem = {status, text};
    struct ws_verdict verdict;
    struct buffer out;

    buffer_init(&out, 0);
    ws_admission_refuse(server, &problem, &verdict);
    verdict.headers = "retry-after: 1\r\n";
    write_answer(&out, &verdict);
    if (!server->tls && !out.failed) {
        (void)!send(fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        /* Bytes that are left unread would make it a reset, and the answer would be lost. */
        (void)!recv(fd, server->scratch, WS_SCRATCH_SIZE, MSG_DONTWAIT);
    }
    buffer_close(&out);
    close(fd);
}

static struct newcomer *create(struct ws_server *server, int fd, SSL *tls)
{
    struct newcomer *newcomer = mem_calloc(1, sizeof *newcomer);

    if (!newcomer)
        return NULL;
    newcomer->server = server;
    newcomer->fd = fd;
    newcomer->tls = tls;
    buffer_init(&newcomer->head, server->config->head_limit);
    buffer_init(&newcomer->answer, 0);
    event_assign(&newcomer->event, loop_base(server->options.loop), fd, EV_READ | EV_PERSIST, on_event, newcomer);
    newcomer->waiting_for = EV_READ;
    list_init(&newcomer->link);
    server->newcomer_count++;
    charge(newcomer, sizeof *newcomer + BUDGET_OVERHEAD);
    return newcomer;
}

void ws_newcomer_linger(struct ws_server *server, int fd)
{
    bool crowded = server->newcomer_count >= server->options.max_handshakes;
    struct newcomer *newcomer = crowded ? NULL : create(server, fd, NULL);

    if (!newcomer) {
        close(fd);
        return;
    }
    set_state(newcomer, NEWCOMER_LINGER, LINGER_MS);
    if (event_add(&newcomer->event, NULL) != 0)
        newcomer_drop(newcomer);
}

/* Whether TLS is served and can begin, or isn't. */
static bool begin_tls(struct ws_server *server, int fd, SSL **tls)
{
    *tls = NULL;
    if (!server->tls)
        return true;
    *tls = SSL_new(server->tls);
    if (!*tls || SSL_set_fd(*tls, fd) != 1)
        return false;
    SSL_set_accept_state(*tls);
    return true;
}

static struct newcomer *begin(struct ws_server *server, int fd, struct address_share *share)
{
    SSL *tls;
    struct newcomer *newcomer = begin_tls(server, fd, &tls) ? create(server, fd, tls) : NULL;

    if (!newcomer) {
        log_error("connection refused", log_str("reason", error_name(ERROR_NO_MEMORY)));
        SSL_free(tls);
        address_share_release(share);
        close(fd);
        return NULL;
    }
    newcomer->share = share;
    newcomer->silent = true;
    set_state(newcomer, tls ? NEWCOMER_TLS : NEWCOMER_HEAD, server->config->handshake_timeout);
    return newcomer;
}

void ws_newcomer_accept(struct ws_server *server, int fd, const struct sockaddr *address, socklen_t address_len)
{
    struct address_share *share;

    if (is_crowded(server)) {
        turn_away(server, fd, 503, "too many connections are in their handshake, try again later");
        return;
    }
    if (address_limit_take(server->addresses, server->config, address, &share) == ADDRESS_REFUSED) {
        server->options.metrics->refused_address++;
        turn_away(server, fd, 429, "too many connections from your address");
        return;
    }
    struct newcomer *newcomer = begin(server, fd, share);
    if (!newcomer)
        return;
    newcomer->address_len = address_len < sizeof newcomer->address ? address_len : sizeof newcomer->address;
    memcpy(&newcomer->address, address, newcomer->address_len);
    if (event_add(&newcomer->event, NULL) != 0)
        newcomer_drop(newcomer);
}
