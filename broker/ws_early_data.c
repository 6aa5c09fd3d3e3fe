/* Keeps what a client sent right behind its request.
 *
 * libwebsockets 4 builds its answer to an upgrade in the buffer that it read the request into, over whatever
 * followed the request there and is parsed only afterwards. So that part of the buffer is saved before the
 * answer is built and put back when it was sent.
 *
 * Where the buffer lies is not told; but the room offered for more headers of such an answer ends where the
 * buffer ends. So the first upgrade is one of our own, over a pair of sockets, and refused once it has told. */
#include "base/log.h"
#include "broker/ws_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char request[] =
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";

bool ws_early_data_start(struct ws_server *server)
{
    struct ws_early_data *early = &server->early;
    lws_sock_file_fd_type fd;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        log_error("no pair of sockets", log_str("reason", strerror(errno)));
        return false;
    }
    early->probe_fd = fd.sockfd = pair[0];
    early->probe_peer = pair[1];
    if (write(pair[1], request, sizeof request - 1) == (ssize_t)(sizeof request - 1) &&
        lws_adopt_descriptor_vhost(server->vhost, LWS_ADOPT_HTTP | LWS_ADOPT_SOCKET, fd, NULL, NULL))
        return true;
    log_error("libwebsockets doesn't take a socket");
    return false;
}

void ws_early_data_close(struct ws_server *server)
{
    if (server->early.probe_peer > 0)
        close(server->early.probe_peer);
    server->early.probe_peer = server->early.probe_fd = 0;
}

bool ws_early_data_is_probe(const struct ws_server *server, struct lws *wsi)
{
    return server->early.probe_fd > 0 && lws_get_socket_fd(wsi) == server->early.probe_fd;
}

void ws_early_data_learn(struct ws_server *server, const struct lws_process_html_args *room)
{
    server->early.buffer = (unsigned char *)room->p + room->max_len - WS_SCRATCH_SIZE;
    ws_early_data_close(server);
}

void ws_early_data_save(struct ws_server *server)
{
    if (server->early.buffer)
        memcpy(server->early.saved, server->early.buffer, sizeof server->early.saved);
}

void ws_early_data_restore(struct ws_server *server)
{
    if (server->early.buffer)
        memcpy(server->early.buffer, server->early.saved, sizeof server->early.saved);
}
