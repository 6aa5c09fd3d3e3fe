/* The plain dialect: the URL says who somebody is and where messages go, and a WebSocket message is the payload alone.
 * Switchboard's plain face, nchan, the Bun server and the floor are all set up to speak it under the same paths. */
#include "bench/load.h"

#include <stdio.h>
#include <string.h>

static void plain_path(const struct connection *conn, char *out, size_t size)
{
    switch (conn->role) {
    case ROLE_SUBSCRIBER:
        snprintf(out, size, "/topic/t%u", conn->topic);
        break;
    case ROLE_PUBLISHER:
        snprintf(out, size, "/publish/t%u", conn->topic);
        break;
    case ROLE_IDLE:
        if (conn->topic != UINT32_MAX) {
            snprintf(out, size, "/topic/i%u", conn->topic);
        } else {
            snprintf(out, size, "/session/i%u/i%u", conn->number, conn->number);
        }
        break;
    case ROLE_RESPONDER:
        snprintf(out, size, "/responder/s%u", conn->number);
        break;
    case ROLE_SESSION:
    case ROLE_REQUESTER:
        snprintf(out, size, "/session/s%u/s%u", conn->number, conn->target);
        break;
    }
}

static void plain_send(struct load *load, struct connection *conn, uint32_t target, struct slice payload)
{
    (void)target;
    memcpy(frame_room(load), payload.data, payload.len);
    frame_send(load, conn, payload.len);
}

static size_t plain_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    if (conn->role == ROLE_RESPONDER) {
        plain_send(load, conn, 0, slice_from(data, len));
    } else {
        load->hooks->on_message(load, conn, slice_from(data, len));
    }
    return len;
}

const struct dialect dialect_plain = {
    .name = "plain",
    .path = plain_path,
    .on_open = connection_ready,
    .on_data = plain_data,
    .send = plain_send,
};

const struct dialect *dialect_find(const char *name)
{
    static const struct dialect *const all[] = {&dialect_plain,   &dialect_json, &dialect_msgpack,
                                                &dialect_http,    &dialect_nats, &dialect_mqtt,
                                                &dialect_socketio};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}
