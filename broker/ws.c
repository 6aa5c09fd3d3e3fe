#include "broker/ws.h"

#include "base/alloc.h"
#include "base/log.h"
#include "broker/listener.h"
#include "broker/lws_loop.h"
#include "broker/metrics.h"
#include "broker/ws_internal.h"
#include "proto/frame.h"

#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

enum {
    /* Each connection owns a receive buffer of this size for as long as it lives; a read takes no more at
       once. */
    RX_BUFFER_SIZE = 384,
    KEEPALIVE_SECONDS = 5,
    TICK_MIN_MS = 20,
    TICK_MAX_MS = 1000,
};

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct ws_server *server = lws_context_user(lws_get_context(wsi));

    switch (reason) {
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
        ws_early_data_save(server);
        return ws_early_data_is_probe(server, wsi) ? 0 : ws_http_confirm_upgrade(server, wsi);
    case LWS_CALLBACK_ADD_HEADERS:
        if (!ws_early_data_is_probe(server, wsi))
            return 0;
        ws_early_data_learn(server, in);
        return -1;
    case LWS_CALLBACK_HTTP:
        return ws_http_request(server, wsi, in);
    case LWS_CALLBACK_WSI_DESTROY:
        ws_head_close(wsi);
        return 0;
    case LWS_CALLBACK_ESTABLISHED:
        ws_early_data_restore(server);
        return ws_connection_open(server, wsi);
    case LWS_CALLBACK_RECEIVE:
        return ws_connection_receive(wsi, in, len);
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return ws_connection_writable(wsi);
    case LWS_CALLBACK_RECEIVE_PONG:
        ws_connection_pong(wsi);
        return 0;
    case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
        return ws_connection_peer_close(wsi, in, len);
    case LWS_CALLBACK_CLOSED:
        ws_connection_closed(wsi);
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

/* The first serves HTTP and the WebSockets that ask for no subprotocol; with a space in it nobody can ask for its name. */
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
    ws_head_accept(server, fd, peer, peer_len);
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
    bool by_interval = config->ping_interval && config->ping_interval < config->ping_timeout;
    uint64_t period = (by_interval ? config->ping_interval : config->ping_timeout) / 4;

    period = period < TICK_MIN_MS ? TICK_MIN_MS : period > TICK_MAX_MS ? TICK_MAX_MS : period;
    struct timeval interval = {.tv_sec = (time_t)(period / 1000),
                               .tv_usec = (suseconds_t)(period % 1000 * 1000)};
    return event_add(server->ping_timer, &interval) == 0;
}

static bool start_pings(struct ws_server *server)
{
    /* Not empty: libwebsockets keeps pongs without a payload to itself. */
    server->ping_frame = frame_create(FRAME_PING, slice_text("ping"));
    server->ping_timer = event_new(loop_base(server->options.loop), -1, EV_PERSIST, on_ping_timer, server);
    return server->ping_frame && server->ping_timer && set_ping_timer(server);
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
    info.max_http_header_data = WS_HEADER_MAX;
    /* Pings are ours (ws_connection.c). libwebsockets' own check would put each connection into one sorted list, whose insertion
     * takes longer the longer it is. */
    info.retry_and_idle_policy = &no_validity_checks;
    info.pt_serv_buf_size = WS_SCRATCH_SIZE;
    info.timeout_secs = seconds(config->handshake_timeout);
    info.timeout_secs_ah_idle = info.timeout_secs;
    info.keepalive_timeout = KEEPALIVE_SECONDS;
    /* Raw frames are not for HTTP/2. */
    info.alpn = "http/1.1";
    if (config->tls_cert && *config->tls_cert) {
        info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
        info.ssl_cert_filepath = config->tls_cert;
        info.ssl_private_key_filepath = config->tls_key;
        info.ssl_options_set = SSL_OP_NO_SSLv2 | SSL_OP_NO_SSLv3 | SSL_OP_NO_TLSv1 | SSL_OP_NO_TLSv1_1;
    }
    server->lws = lws_loop_create(server->options.loop, &info);
    if (!server->lws)
        return false;
    lws_loop_set_on_input(server->lws, ws_head_on_input);
    server->vhost = lws_get_vhost_by_name(lws_loop_context(server->lws), info.vhost_name);
    return server->vhost != NULL;
}

struct ws_server *ws_server_create(const struct ws_options *options)
{
    struct ws_server *server = mem_calloc(1, sizeof *server);

    if (!server)
        return NULL;
    server->options = *options;
    server->config = config_ref(options->config);
    list_init(&server->newcomers);
    list_init(&server->dirty);
    list_init(&server->quiet);
    list_init(&server->pinged);
    loop_task_init(&server->flush_task, ws_connections_on_flush);
    if (!create_context(server) || !ws_early_data_start(server) || !start_pings(server))
        goto failed;
    server->listener = listener_create(options->loop, server->config->listen.text, on_accept, server);
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
    if (server->lws)
        lws_loop_destroy(server->lws);
    ws_early_data_close(server);
    loop_cancel(&server->flush_task);
    if (server->ping_timer)
        event_free(server->ping_timer);
    frame_unref(server->ping_frame);
    config_unref(server->config);
    mem_free(server);
}

const char *ws_server_address(const struct ws_server *server)
{
    return listener_address(server->listener);
}

void ws_server_stop(struct ws_server *server)
{
    listener_stop(server->listener);
}

void ws_server_reload(struct ws_server *server, struct config *config, size_t max_connections)
{
    config_unref(server->config);
    server->config = config_ref(config);
    server->options.max_connections = max_connections;
    ws_connections_reschedule_pings(server);
    set_ping_timer(server);
}
