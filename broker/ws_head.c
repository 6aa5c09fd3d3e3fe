/* A connection from its acceptance until it becomes a session: what its request asks for, byte for byte.
 *
 * libwebsockets decodes a request's path as if it were a form's, and keeps nothing of what was sent. So before it reads
 * from a new connection, the request's first line is looked at where it waits, and the target is kept until the upgrade
 * is decided. Nothing is consumed: libwebsockets then reads the same bytes.
 *
 * Half a line stays in the socket, which is told not to report itself readable before there is more (SO_RCVLOWAT). A
 * client that sends no more is dropped by libwebsockets at handshake_timeout, like one that sends nothing.
 *
 * Inside of TLS only what one record holds can be looked at. When that is no whole line, and for further requests on a
 * connection, libwebsockets' own reading has to do.
 *
 * Connections that are no sessions yet may use no more descriptors than max_connections leaves, and a few: beyond that
 * the one that has waited longest goes. So clients that hang in the handshake neither lock out others nor keep the
 * storage from reconnecting. */
#include "base/alloc.h"
#include "base/log.h"
#include "broker/listener.h"
#include "broker/metrics.h"
#include "broker/target.h"
#include "broker/ws_internal.h"
#include "proto/errors.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of the descriptors that broker.c keeps from sessions. */
enum { SPARE_NEWCOMERS = 64 };

struct ws_head {
    struct ws_peer peer;
    struct list link; /* in server->newcomers */
    struct ws_server *server;
    struct lws *wsi;
    char *target; /* owned; NULL: not known, or no longer */
    size_t target_len;
    size_t seen;  /* bytes of a line that is not complete; 0 for all others */
    bool refused; /* what still comes is thrown away */
    struct sockaddr_storage address; /* the client's */
    socklen_t address_len;
};

/* NULL for a session, and for what came by another way than the listener. */
static struct ws_head *head_of(struct lws *wsi)
{
    struct ws_peer *peer = lws_get_opaque_user_data(wsi);

    return peer && !peer->is_session ? container_of(peer, struct ws_head, peer) : NULL;
}

/* ---- acceptance ---- */

static void make_room(struct ws_server *server)
{
    size_t limit = server->options.max_connections + SPARE_NEWCOMERS;
    bool crowded = sessions_total(server->options.sessions) + server->newcomer_count >= limit;

    if (crowded && server->newcomer_count) {
        struct ws_head *oldest = container_of(server->newcomers.next, struct ws_head, link);
        server->options.metrics->refused_full++;
        lws_set_timeout(oldest->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    }
    if (crowded && !server->crowded)
        log_warn("connections dropped", log_str("reason", "too many have not finished their handshake"),
                 log_int("waiting", (int64_t)server->newcomer_count));
    server->crowded = crowded;
}

void ws_head_accept(struct ws_server *server, int fd, const struct sockaddr *address, socklen_t address_len)
{
    struct ws_head *head = mem_calloc(1, sizeof *head);

    if (!head) {
        log_error("connection refused", log_str("reason", error_name(ERROR_NO_MEMORY)));
        close(fd);
        return;
    }
    make_room(server);
    /* On failure libwebsockets has closed the descriptor and said why. */
    head->wsi = lws_adopt_socket_vhost(server->vhost, fd);
    if (!head->wsi) {
        mem_free(head);
        return;
    }
    head->server = server;
    head->address_len = address_len < sizeof head->address ? address_len : sizeof head->address;
    memcpy(&head->address, address, head->address_len);
    list_append(&server->newcomers, &head->link);
    server->newcomer_count++;
    lws_set_opaque_user_data(head->wsi, &head->peer);
}

void ws_head_close(struct lws *wsi)
{
    struct ws_head *head = head_of(wsi);

    if (!head)
        return;
    lws_set_opaque_user_data(wsi, NULL);
    list_remove(&head->link);
    head->server->newcomer_count--;
    mem_free(head->target);
    mem_free(head);
}

size_t ws_head_address(struct lws *wsi, char *out, size_t size)
{
    const struct ws_head *head = head_of(wsi);

    return head ? listener_format((const struct sockaddr *)&head->address, head->address_len, out, size) : 0;
}

struct slice ws_head_target(struct lws *wsi)
{
    const struct ws_head *head = head_of(wsi);

    return head ? slice_from(head->target, head->target_len) : slice_from(NULL, 0);
}

void ws_head_forget_target(struct lws *wsi)
{
    struct ws_head *head = head_of(wsi);

    if (!head)
        return;
    mem_free(head->target);
    head->target = NULL;
    head->target_len = 0;
}

/* ---- refusal ---- */

static enum lws_loop_input throw_away(struct ws_head *head)
{
    ssize_t got = recv(lws_get_socket_fd(head->wsi), head->server->scratch, WS_SCRATCH_SIZE, MSG_DONTWAIT);

    /* The end is libwebsockets' to see. */
    return got > 0 || (got < 0 && errno == EAGAIN) ? LWS_LOOP_HOLD : LWS_LOOP_RELEASE;
}

/* Answers without libwebsockets, which has not read the request. What the client still sends is read for a moment, or
 * the answer would be lost with the reset. */
static enum lws_loop_input refuse(struct ws_head *head, const char *status, const char *text)
{
    unsigned char response[LWS_PRE + 512];
    int len = snprintf((char *)response + LWS_PRE, sizeof response - LWS_PRE,
                       "HTTP/1.1 %s\r\nserver: switchboard\r\ncontent-type: text/plain; charset=utf-8\r\n"
                       "content-length: %zu\r\nconnection: close\r\n\r\n%s\n",
                       status, strlen(text) + 1, text);

    head->server->options.metrics->refused_request++;
    head->refused = true;
    if (lws_write(head->wsi, response + LWS_PRE, (size_t)len, LWS_WRITE_HTTP_HEADERS) < 0)
        return LWS_LOOP_RELEASE;
    shutdown(lws_get_socket_fd(head->wsi), SHUT_WR);
    lws_set_timeout(head->wsi, PENDING_TIMEOUT_USER_OK, 1);
    return throw_away(head);
}

/* ---- the first line ---- */

/* From how many waiting bytes on the socket reports itself readable. */
static void report_from(struct ws_head *head, size_t bytes)
{
    int mark = (int)bytes;

    if (bytes > 1 || head->seen)
        setsockopt(lws_get_socket_fd(head->wsi), SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark);
}

static enum lws_loop_input keep_target(struct ws_head *head, struct slice target)
{
    head->target = mem_alloc(target.len + 1);
    if (!head->target)
        return refuse(head, "503 Service Unavailable", "out of memory, try again later");
    memcpy(head->target, target.data, target.len);
    head->target_len = target.len;
    return LWS_LOOP_RELEASE;
}

static enum lws_loop_input refuse_length(struct ws_head *head)
{
    return refuse(head, "414 URI Too Long", "the first line of the request is too long");
}

static enum lws_loop_input look_at_socket(struct ws_head *head)
{
    char input[WS_HEADER_MAX];
    struct slice target;
    ssize_t got = recv(lws_get_socket_fd(head->wsi), input, sizeof input, MSG_PEEK | MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return LWS_LOOP_HOLD;
    bool whole = got > 0 && target_find(slice_from(input, (size_t)got), &target);
    /* Reported without more to read: the client has finished sending. */
    bool ended = got <= 0 || (size_t)got == head->seen;
    if (!whole && !ended && got < (ssize_t)sizeof input) {
        head->seen = (size_t)got;
        report_from(head, head->seen + 1);
        return LWS_LOOP_HOLD;
    }
    report_from(head, 1);
    return whole ? keep_target(head, target) : ended ? LWS_LOOP_RELEASE : refuse_length(head);
}

static enum lws_loop_input look_into_tls(struct ws_head *head, SSL *tls)
{
    char input[WS_HEADER_MAX];
    struct slice target;

    if (!SSL_is_init_finished(tls))
        return LWS_LOOP_SERVE;
    ERR_clear_error();
    int got = SSL_peek(tls, input, sizeof input);
    if (got > 0 && target_find(slice_from(input, (size_t)got), &target))
        return keep_target(head, target);
    if (got == sizeof input)
        return refuse_length(head);
    int error = got > 0 ? SSL_ERROR_NONE : SSL_get_error(tls, got);
    ERR_clear_error();
    return error == SSL_ERROR_WANT_READ ? LWS_LOOP_HOLD : LWS_LOOP_RELEASE;
}

enum lws_loop_input ws_head_on_input(struct lws *wsi)
{
    struct ws_head *head = head_of(wsi);

    /* Not from the listener. */
    if (!head)
        return LWS_LOOP_RELEASE;
    if (head->refused)
        return throw_away(head);
    SSL *tls = lws_get_ssl(wsi);
    return tls ? look_into_tls(head, tls) : look_at_socket(head);
}
