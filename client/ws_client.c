/* Happy path: resolve → connect (each address in turn) → TLS → handshake → messages → close frames both ways → end.
 *
 * Whatever goes wrong on the way ends in end(), which remembers the first reason and calls on_end from the loop. The
 * structure is freed by ws_client_destroy(); inside a callback it becomes a husk, and the outermost frame of this file
 * frees it. */
#include "client/ws_client.h"

#include "base/alloc.h"
#include "client/url.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { CLOSE_TIMEOUT_MS = 1000, REASON_SIZE = 256, MASK_POOL = 256 };

enum ws_phase { PHASE_RESOLVING, PHASE_CONNECTING, PHASE_HANDSHAKE, PHASE_OPEN, PHASE_CLOSING, PHASE_ENDED };

struct ws_client {
    struct ws_shared *shared;
    const struct ws_handler *handler;
    void *data;
    enum ws_phase phase;
    struct evdns_getaddrinfo_request *resolving;
    struct evutil_addrinfo *addresses, *next_address; /* owned; the one to try next */
    unsigned short port;
    bool tls;
    char host[URL_HOST_SIZE];
    struct bufferevent *bev;
    struct event *timer; /* connecting or closing takes too long; or the end is to be told */
    char *request;       /* owned; the handshake as it is sent */
    char key[WS_KEY_SIZE];
    char *subprotocol; /* owned */
    struct ws_parser parser;
    unsigned char masks[MASK_POOL]; /* random bytes, */
    size_t masks_left;              /* of which these are unused */
    struct ws_end end;
    char reason[REASON_SIZE];
    unsigned busy; /* callbacks of this connection on the stack */
    bool doomed;   /* destroyed while busy */
};

static void connect_next(struct ws_client *ws);

/* ---- shared -------------------------------------------------------------------------------------------- */

void ws_shared_init(struct ws_shared *shared, struct event_base *base)
{
    *shared = (struct ws_shared){.base = base};
}

void ws_shared_close(struct ws_shared *shared)
{
    if (shared->dns)
        evdns_base_free(shared->dns, 0);
    SSL_CTX_free(shared->tls);
    shared->dns = NULL;
    shared->tls = NULL;
}

static struct evdns_base *get_dns(struct ws_shared *shared)
{
    if (!shared->dns) {
        shared->dns = evdns_base_new(shared->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
        /* Without a readable resolv.conf, /etc/hosts still serves. */
        if (shared->dns &&
            evdns_base_resolv_conf_parse(shared->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf") != 0) {
            evdns_base_load_hosts(shared->dns, "/etc/hosts");
            if (!evdns_base_count_nameservers(shared->dns))
                evdns_base_nameserver_ip_add(shared->dns, "127.0.0.1");
        }
    }
    return shared->dns;
}

static SSL_CTX *get_tls(struct ws_shared *shared, const char **problem)
{
    if (shared->tls)
        return shared->tls;
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());
    *problem = "memory is short";
    if (!tls)
        return NULL;
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(tls, shared->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (shared->ca_file ? SSL_CTX_load_verify_locations(tls, shared->ca_file, NULL) == 1
                        : SSL_CTX_set_default_verify_paths(tls) == 1) {
        shared->tls = tls;
        return tls;
    }
    *problem = "the file with the trusted certificates can't be read";
    ERR_clear_error();
    SSL_CTX_free(tls);
    return NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static void set_timer(struct ws_client *ws, unsigned ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    event_add(ws->timer, &delay);
}

static void drop_transport(struct ws_client *ws)
{
    if (ws->resolving)
        evdns_getaddrinfo_cancel(
            ws->resolving); /* its callback still comes: on_resolved() knows it by the phase */
    ws->resolving = NULL;
    if (ws->bev)
        bufferevent_free(ws->bev);
    ws->bev = NULL;
}

static void release(struct ws_client *ws)
{
    if (ws->addresses)
        evutil_freeaddrinfo(ws->addresses);
    if (ws->timer)
        event_free(ws->timer);
    ws_parser_close(&ws->parser);
    mem_free(ws->request);
    mem_free(ws->subprotocol);
    mem_free(ws);
}

static void enter(struct ws_client *ws)
{
    ws->busy++;
}

static void leave(struct ws_client *ws)
{
    if (--ws->busy == 0 && ws->doomed)
        release(ws);
}

void ws_client_destroy(struct ws_client *ws)
{
    if (!ws)
        return;
    ws->phase = PHASE_ENDED;
    ws->doomed = true;
    event_del(ws->timer);
    enter(ws); /* a cancelled look-up calls back inside */
    drop_transport(ws);
    leave(ws);
}

/* The first reason counts. on_end comes from the loop. */
static void end(struct ws_client *ws, const char *reason)
{
    if (ws->phase == PHASE_ENDED)
        return;
    ws->phase = PHASE_ENDED;
    if (!ws->end.reason) {
        snprintf(ws->reason, sizeof ws->reason, "%s", reason);
        ws->end.reason = ws->reason;
    }
    drop_transport(ws);
    set_timer(ws, 0);
}

static void on_timer(evutil_socket_t fd, short what, void *data)
{
    struct ws_client *ws = data;

    (void)fd;
    (void)what;
    enter(ws);
    if (ws->phase == PHASE_ENDED)
        ws->handler->on_end(&ws->end, ws->data);
    else
        end(ws,
            ws->phase == PHASE_CLOSING ? "the server did not answer the close" : "connecting took too long");
    leave(ws);
}

/* ---- sending ------------------------------------------------------------------------------------------- */

static const unsigned char *take_mask(struct ws_client *ws)
{
    if (!ws->masks_left) {
        if (RAND_bytes(ws->masks, sizeof ws->masks) != 1)
            return NULL;
        ws->masks_left = sizeof ws->masks;
    }
    ws->masks_left -= 4;
    return ws->masks + ws->masks_left;
}

static bool write_frame(struct ws_client *ws, enum ws_opcode opcode, const void *bytes, size_t len)
{
    struct evbuffer *output = bufferevent_get_output(ws->bev);
    const unsigned char *mask = take_mask(ws);
    unsigned char header[WS_HEADER_MAX];
    struct evbuffer_iovec space;

    if (!mask)
        return false;
    size_t header_len = ws_write_header(opcode, len, mask, header);
    if (evbuffer_reserve_space(output, (ev_ssize_t)(header_len + len), &space, 1) != 1)
        return false;
    memcpy(space.iov_base, header, header_len);
    ws_mask((unsigned char *)space.iov_base + header_len, bytes, len, mask, 0);
    space.iov_len = header_len + len;
    return evbuffer_commit_space(output, &space, 1) == 0;
}

bool ws_client_send(struct ws_client *ws, enum ws_opcode opcode, const void *bytes, size_t len)
{
    return ws->phase == PHASE_OPEN && write_frame(ws, opcode, bytes, len);
}

size_t ws_client_pending(const struct ws_client *ws)
{
    return ws->bev ? evbuffer_get_length(bufferevent_get_output(ws->bev)) : 0;
}

void ws_client_set_silence(struct ws_client *ws, unsigned ms)
{
    struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    if (ws->bev)
        bufferevent_set_timeouts(ws->bev, ms ? &timeout : NULL, NULL);
}

static void send_close(struct ws_client *ws, int code, const char *reason, size_t len)
{
    unsigned char payload[WS_CONTROL_MAX];

    len = len < sizeof payload - 2 ? len : sizeof payload - 2;
    payload[0] = (unsigned char)(code >> 8);
    payload[1] = (unsigned char)code;
    memcpy(payload + 2, reason, len);
    write_frame(ws, WS_CLOSE, payload, len + 2);
}

void ws_client_close(struct ws_client *ws, int code, const char *reason)
{
    if (ws->phase == PHASE_OPEN) {
        send_close(ws, code, reason, strlen(reason));
        ws->phase = PHASE_CLOSING;
        set_timer(ws, CLOSE_TIMEOUT_MS);
    } else if (ws->phase < PHASE_OPEN) {
        end(ws, "closed before it was open");
    }
}

/* ---- receiving ----------------------------------------------------------------------------------------- */

/* The server began to close, or answered our close: the answer goes out, then the connection ends. */
static void on_close_frame(struct ws_client *ws, const struct ws_event *event)
{
    snprintf(ws->reason, sizeof ws->reason, "%.*s", (int)event->len, event->data);
    ws->end.close_code = event->code;
    ws->end.reason = ws->reason;
    if (ws->phase == PHASE_OPEN) {
        send_close(ws, event->code == 1005 ? 1000 : event->code, "", 0);
        ws->phase = PHASE_CLOSING;
        set_timer(ws, CLOSE_TIMEOUT_MS);
        return; /* the server closes the connection: RFC 6455 section 7.1.1 */
    }
    end(ws, "");
}

static void on_event(struct ws_client *ws, const struct ws_event *event)
{
    switch (event->type) {
    case WS_MESSAGE:
        if (ws->phase == PHASE_OPEN)
            ws->handler->on_message(event->opcode, event->data, event->len, ws->data);
        break;
    case WS_PINGED:
        if (ws->phase == PHASE_OPEN)
            write_frame(ws, WS_PONG, event->data, event->len);
        break;
    case WS_CLOSED:
        on_close_frame(ws, event);
        break;
    case WS_BROKEN:
        if (ws->phase == PHASE_OPEN)
            send_close(ws, event->code, event->data, event->len);
        snprintf(ws->reason, sizeof ws->reason, "%.*s", (int)event->len, event->data);
        ws->end.close_code = event->code;
        ws->end.reason = ws->reason;
        /* What was written goes out as far as the socket takes it at once; a broken server is owed no more. */
        bufferevent_flush(ws->bev, EV_WRITE, BEV_FLUSH);
        end(ws, "");
        break;
    case WS_PONGED:
    case WS_MORE:
        break;
    }
}

static void read_frames(struct ws_client *ws)
{
    struct evbuffer *input = bufferevent_get_input(ws->bev);
    struct evbuffer_iovec chunk;

    while ((ws->phase == PHASE_OPEN || ws->phase == PHASE_CLOSING) && !ws->end.close_code &&
           evbuffer_peek(input, -1, NULL, &chunk, 1) > 0) {
        struct ws_event event;
        size_t used = ws_parser_feed(&ws->parser, chunk.iov_base, chunk.iov_len, &event);
        evbuffer_drain(input, used);
        on_event(ws, &event);
    }
}

static void read_response(struct ws_client *ws)
{
    struct evbuffer *input = bufferevent_get_input(ws->bev);
    size_t len = evbuffer_get_length(input);
    const char *data = len ? (const char *)evbuffer_pullup(input, (ev_ssize_t)len) : NULL;
    struct ws_response response;

    if (!data || !ws_read_response(data, len, ws->key, ws->subprotocol, &response))
        return;
    if (response.problem) {
        ws->end.http_status = response.status;
        ws->end.retry_after = response.retry_after;
        if (response.status && response.status != 101) {
            char text[REASON_SIZE];
            snprintf(text, sizeof text, "%s with HTTP status %d", response.problem, response.status);
            end(ws, text);
        } else {
            end(ws, response.problem);
        }
        return;
    }
    evbuffer_drain(input, response.len);
    ws->phase = PHASE_OPEN;
    event_del(ws->timer);
    ws->handler->on_open(ws->data);
    if (ws->phase == PHASE_OPEN)
        read_frames(ws);
}

static void on_read(struct bufferevent *bev, void *data)
{
    struct ws_client *ws = data;

    (void)bev;
    enter(ws);
    if (ws->phase == PHASE_HANDSHAKE)
        read_response(ws);
    else
        read_frames(ws);
    leave(ws);
}

static void on_written(struct bufferevent *bev, void *data)
{
    struct ws_client *ws = data;

    (void)bev;
    enter(ws);
    if (ws->phase == PHASE_OPEN)
        ws->handler->on_drained(ws->data);
    leave(ws);
}

/* ---- connecting ---------------------------------------------------------------------------------------- */

static void begin_handshake(struct ws_client *ws)
{
    int on = 1;
    int fd = bufferevent_getfd(ws->bev);

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ws->phase = PHASE_HANDSHAKE;
    bufferevent_enable(ws->bev, EV_READ);
    if (bufferevent_write(ws->bev, ws->request, strlen(ws->request)) != 0)
        end(ws, "memory is short");
}

/* Why TLS failed, where it is known. */
static const char *tls_problem(struct ws_client *ws, char *out, size_t size)
{
    SSL *ssl = ws->tls && ws->bev ? bufferevent_openssl_get_ssl(ws->bev) : NULL;
    unsigned long code = ssl ? bufferevent_get_openssl_error(ws->bev) : 0;
    long verify = ssl ? SSL_get_verify_result(ssl) : X509_V_OK;

    if (verify != X509_V_OK && !ws->shared->insecure)
        snprintf(out, size, "the server's certificate was refused: %s",
                 X509_verify_cert_error_string(verify));
    else if (code)
        snprintf(out, size, "TLS: %s",
                 ERR_reason_error_string(code) ? ERR_reason_error_string(code) : "failed");
    else
        return NULL;
    return out;
}

static void on_bufferevent(struct bufferevent *bev, short what, void *data)
{
    struct ws_client *ws = data;
    int error = EVUTIL_SOCKET_ERROR();
    char text[REASON_SIZE];

    (void)bev;
    enter(ws);
    if (what & BEV_EVENT_CONNECTED) {
        begin_handshake(ws);
    } else if (what & BEV_EVENT_TIMEOUT) {
        end(ws, "the server went silent");
    } else if (what & (BEV_EVENT_ERROR | BEV_EVENT_EOF)) {
        const char *problem = tls_problem(ws, text, sizeof text);
        if (!problem && ws->phase == PHASE_CONNECTING && ws->next_address) {
            connect_next(ws);
        } else if (problem) {
            end(ws, problem);
        } else if (what & BEV_EVENT_EOF) {
            end(ws, ws->phase == PHASE_OPEN ? "the connection was lost" : "the server closed the connection");
        } else {
            end(ws, error ? evutil_socket_error_to_string(error) : "the connection was lost");
        }
    }
    leave(ws);
}

/* NULL when TLS can't begin; `problem` then says why. */
static SSL *create_ssl(struct ws_client *ws, const char **problem)
{
    SSL_CTX *tls = get_tls(ws->shared, problem);
    SSL *ssl = tls ? SSL_new(tls) : NULL;
    unsigned char address[sizeof(struct in6_addr)];

    if (!ssl)
        return NULL;
    if (evutil_inet_pton(AF_INET, ws->host, address) == 1 ||
        evutil_inet_pton(AF_INET6, ws->host, address) == 1) {
        if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), ws->host))
            return ssl;
    } else if (SSL_set1_host(ssl, ws->host) && SSL_set_tlsext_host_name(ssl, ws->host)) {
        return ssl;
    }
    *problem = "memory is short";
    SSL_free(ssl);
    return NULL;
}

static const char *create_transport(struct ws_client *ws)
{
    int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
    const char *problem = "memory is short";

    if (ws->bev)
        bufferevent_free(ws->bev);
    ws->bev = NULL;
    if (ws->tls) {
        SSL *ssl = create_ssl(ws, &problem);
        if (!ssl)
            return problem;
        ws->bev =
            bufferevent_openssl_socket_new(ws->shared->base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, options);
        if (ws->bev)
            bufferevent_openssl_set_allow_dirty_shutdown(ws->bev, 1);
        else
            SSL_free(ssl);
    } else {
        ws->bev = bufferevent_socket_new(ws->shared->base, -1, options);
    }
    if (!ws->bev)
        return problem;
    bufferevent_setcb(ws->bev, on_read, on_written, on_bufferevent, ws);
    return NULL;
}

static void connect_next(struct ws_client *ws)
{
    struct evutil_addrinfo *address = ws->next_address;

    ws->next_address = address->ai_next;
    ws->phase = PHASE_CONNECTING;
    const char *problem = create_transport(ws);
    if (problem) {
        end(ws, problem);
    } else if (bufferevent_socket_connect(ws->bev, address->ai_addr, (int)address->ai_addrlen) != 0) {
        if (ws->next_address)
            connect_next(ws);
        else
            end(ws, evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
    }
}

static void on_resolved(int error, struct evutil_addrinfo *addresses, void *data)
{
    struct ws_client *ws = data;

    enter(ws);
    ws->resolving = NULL;
    if (ws->phase != PHASE_RESOLVING) {
        if (addresses)
            evutil_freeaddrinfo(addresses);
    } else if (error || !addresses) {
        char text[REASON_SIZE];
        snprintf(text, sizeof text, "the host %.120s was not found: %.80s", ws->host,
                 evutil_gai_strerror(error));
        end(ws, text);
    } else {
        ws->addresses = ws->next_address = addresses;
        connect_next(ws);
    }
    leave(ws);
}

static void resolve(struct ws_client *ws)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_protocol = IPPROTO_TCP,
                                    .ai_flags = EVUTIL_AI_NUMERICHOST | EVUTIL_AI_NUMERICSERV};
    struct evutil_addrinfo *addresses = NULL;
    char port[8];

    snprintf(port, sizeof port, "%u", (unsigned)ws->port);
    if (evutil_getaddrinfo(ws->host, port, &hints, &addresses) == 0) {
        on_resolved(0, addresses, ws);
        return;
    }
    struct evdns_base *dns = get_dns(ws->shared);
    hints.ai_flags = EVUTIL_AI_NUMERICSERV;
    if (!dns) {
        end(ws, "memory is short");
        return;
    }
    /* The callback may have run when this returns NULL. */
    struct evdns_getaddrinfo_request *resolving =
        evdns_getaddrinfo(dns, ws->host, port, &hints, on_resolved, ws);
    if (ws->phase == PHASE_RESOLVING)
        ws->resolving = resolving;
}

static bool prepare_request(struct ws_client *ws, const struct ws_options *options)
{
    unsigned char nonce[16];
    struct buffer text;

    if (RAND_bytes(nonce, sizeof nonce) != 1)
        return false;
    EVP_EncodeBlock((unsigned char *)ws->key, nonce, sizeof nonce);
    const struct ws_request request = {.host = options->url->host_header,
                                       .path = options->path,
                                       .key = ws->key,
                                       .subprotocol = options->subprotocol,
                                       .agent = options->agent,
                                       .token = options->token};
    buffer_init(&text, 0);
    if (ws_write_request(&request, &text))
        ws->request = mem_strdup(buffer_text(&text));
    buffer_close(&text);
    return ws->request != NULL;
}

struct ws_client *ws_client_create(struct ws_shared *shared, const struct ws_options *options,
                                   const struct ws_handler *handler, void *data)
{
    struct ws_client *ws = mem_calloc(1, sizeof *ws);

    if (!ws)
        return NULL;
    ws->shared = shared;
    ws->handler = handler;
    ws->data = data;
    ws->tls = options->url->tls;
    ws->port = options->url->port;
    memcpy(ws->host, options->url->host, sizeof ws->host);
    ws_parser_init(&ws->parser, options->max_message);
    ws->timer = evtimer_new(shared->base, on_timer, ws);
    ws->subprotocol = mem_strdup(options->subprotocol);
    if (!ws->timer || !ws->subprotocol || !prepare_request(ws, options)) {
        release(ws);
        return NULL;
    }
    set_timer(ws, options->timeout);
    resolve(ws);
    return ws;
}
