#include "broker/ws.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "broker/listener.h"
#include "broker/lws_loop.h"
#include "broker/metrics.h"
#include "broker/tls.h"
#include "broker/ws_internal.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Each connection owns a receive buffer of this size for as long as it lives; a read takes no more at
       once. */
    RX_BUFFER_SIZE = 384,
    HEADER_MAX = 1024, /* of the requests that libwebsockets reads, which are ours */
    TICK_MIN_MS = 20,
    TICK_MAX_MS = 1000,
};

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct ws_server *server = lws_context_user(lws_get_context(wsi));

    switch (reason) {
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        return ws_connection_confirm(server, wsi);
    case LWS_CALLBACK_HTTP:
        /* It is given nothing but upgrades. */
        return -1;
    case LWS_CALLBACK_ESTABLISHED:
        return ws_connection_established(server, wsi);
    case LWS_CALLBACK_RECEIVE:
        return ws_connection_receive(wsi, in, len);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return ws_connection_writable(wsi);
    case LWS_CALLBACK_RECEIVE_PONG:
        ws_connection_pong(wsi, in, len);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return ws_connection_peer_close(wsi, in, len);
    case LWS_CALLBACK_CLOSED:
        ws_connection_closed(wsi);
        return 0;
    case LWS_CALLBACK_WSI_DESTROY:
        ws_connection_gone(wsi);
        return 0;
    default:
        return lws_callback_http_dummy(wsi, reason, user, in, len);
    }
}

/* One send may be as large as a message. */
#define PROTOCOL(text)                                                                                       \
    {                                                                                                        \
        .name = (text), .callback = on_event, .rx_buffer_size = RX_BUFFER_SIZE, .tx_packet_size = 1 << 20    \
    }

/* The first serves the WebSockets that ask for no subprotocol. */
static const struct lws_protocols protocols[] = {
    PROTOCOL("no subprotocol"),
    PROTOCOL(WS_PROTOCOL_JSON),
    PROTOCOL(WS_PROTOCOL_MSGPACK),
    {0},
};

static void on_accept(void *data, evutil_socket_t fd, const struct sockaddr *peer, socklen_t peer_len)
{
    struct ws_server *server = data;

    server->options.metrics->accepted++;
    ws_newcomer_accept(server, fd, peer, peer_len);
}

static void on_ping_timer(evutil_socket_t fd, short what, void *data)
{
    (void)fd;
    (void)what;
    ws_connections_tick(data);
}

static bool set_ping_timer(struct ws_server *server)
{
    const struct config *config = server->config;
    const uint64_t times[] = {config->ping_timeout, config->ping_interval, config->stall_timeout,
                              config->message_timeout, config->close_timeout};
    uint64_t period = UINT64_MAX;

    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        if (times[i] && times[i] / 4 < period)
            period = times[i] / 4;
    period = period < TICK_MIN_MS ? TICK_MIN_MS : period > TICK_MAX_MS ? TICK_MAX_MS : period;
    struct timeval interval = {.tv_sec = (time_t)(period / 1000),
                               .tv_usec = (suseconds_t)(period % 1000 * 1000)};
    return event_add(server->ping_timer, &interval) == 0;
}

static bool start_pings(struct ws_server *server)
{
    server->ping_timer = event_new(loop_base(server->options.loop), -1, EV_PERSIST, on_ping_timer, server);
    return server->ping_timer && set_ping_timer(server);
}

static unsigned seconds(uint64_t ms)
{
    return (unsigned)((ms + 999) / 1000);
}

static const lws_retry_bo_t no_validity_checks = {.secs_since_valid_ping = 0, .secs_since_valid_hangup = 0};

static bool create_context(struct ws_server *server)
{
    const struct config *config = server->config;
    struct lws_context_creation_info info;

    /* libwebsockets would read it, and complain of what it can't: but it only ever serves here. */
    unsetenv("http_proxy");
    memset(&info, 0, sizeof info);
    info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
    info.protocols = protocols;
    info.user = server;
    info.server_string = "switchboard";
    info.vhost_name = "switchboard";
    info.max_http_header_data = HEADER_MAX;
    /* Pings are ours (ws_connection.c). libwebsockets' own check would put each connection into one sorted list, whose insertion
     * takes longer the longer it is. */
    info.retry_and_idle_policy = &no_validity_checks;
    info.pt_serv_buf_size = WS_SCRATCH_SIZE;
    info.timeout_secs = seconds(config->handshake_timeout);
    server->lws = lws_loop_create(server->options.loop, &info);
    if (!server->lws)
        return false;
    lws_loop_set_input_of(server->lws, ws_connection_input_of);
    server->vhost = lws_get_vhost_by_name(lws_loop_context(server->lws), info.vhost_name);
    return server->vhost != NULL;
}

static bool start_tls(struct ws_server *server)
{
    const struct config *config = server->config;

    if (!config->tls_cert || !*config->tls_cert)
        return true;
    server->tls = tls_server_context(config->tls_cert, config->tls_key);
    return server->tls != NULL;
}

struct ws_server *ws_server_create(const struct ws_options *options)
{
    struct ws_server *server = mem_calloc(1, sizeof *server);

    if (!server)
        return NULL;
    server->options = *options;
    server->config = config_ref(options->config);
    for (size_t i = 0; i < NEWCOMER_LISTS; i++)
        list_init(&server->newcomers[i]);
    list_init(&server->dirty);
    list_init(&server->quiet);
    list_init(&server->pinged);
    list_init(&server->closing);
    list_init(&server->full_sockets);
    list_init(&server->assembling);
    server->now_ms = clock_monotonic_ms();
    loop_task_init(&server->flush_task, ws_connections_on_flush);
    server->addresses = address_limit_create();
    server->newcomer_timer = event_new(loop_base(options->loop), -1, 0, ws_newcomers_on_timer, server);
    if (!server->addresses || !server->newcomer_timer || !start_tls(server) || !create_context(server) ||
        !start_pings(server))
        goto failed;
    /* A second broker on the port of a single one would take some of its clients, unnoticed. */
    bool shared = server->config->workers > 1;
    server->listener = (shared ? listener_create : listener_create_alone)(
        options->loop, server->config->listen.text, on_accept, server);
    if (!server->listener)
        goto failed;
    return server;

failed:
    ws_server_destroy(server);
    return NULL;
}

void ws_server_destroy(struct ws_server *server)
{
    if (!server)
        return;
    listener_destroy(server->listener);
    ws_newcomers_drop_all(server);
    if (server->lws)
        lws_loop_destroy(server->lws);
    if (server->newcomer_timer)
        event_free(server->newcomer_timer);
    address_limit_destroy(server->addresses);
    SSL_CTX_free(server->tls);
    loop_cancel(&server->flush_task);
    if (server->ping_timer)
        event_free(server->ping_timer);
    config_unref(server->config);
    mem_free(server);
}

const char *ws_server_address(const struct ws_server *server)
{
    return listener_address(server->listener);
}

void ws_server_stop(struct ws_server *server)
{
    server->stopped = true;
    listener_stop(server->listener);
}

void ws_server_reload(struct ws_server *server, struct config *config, size_t max_connections,
                      size_t max_handshakes)
{
    config_unref(server->config);
    server->config = config_ref(config);
    server->options.max_connections = max_connections;
    server->options.max_handshakes = max_handshakes;
    ws_connections_reschedule(server);
    set_ping_timer(server);
}
