/* What the peers speak: NATS' client protocol and MQTT 3.1.1 over WebSocket, and Socket.IO 4 (Engine.IO 4). Quality of
 * service is that of Switchboard's unstored messages: at most once, nothing acknowledged. */
#include "bench/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the connection receives: a topic's messages, or its own. False: nothing. */
static bool inbox_name(const struct connection *conn, char *out, size_t size)
{
    if (conn->role == ROLE_SUBSCRIBER) {
        snprintf(out, size, "t%u", conn->topic);
    } else if (conn->role == ROLE_SESSION || conn->role == ROLE_RESPONDER) {
        snprintf(out, size, "s%u", conn->number);
    } else if (conn->role == ROLE_IDLE) {
        snprintf(out, size, "i%u", conn->topic == UINT32_MAX ? conn->number : conn->topic);
    } else {
        return false;
    }
    return true;
}

static size_t target_name(const struct connection *conn, uint32_t target, char *out, size_t size)
{
    return (size_t)snprintf(out, size, "%c%u", conn->role == ROLE_PUBLISHER ? 't' : 's', target);
}

static void root_path(const struct connection *conn, char *out, size_t size)
{
    (void)conn;
    snprintf(out, size, "/");
}

/* ---- NATS */

/* A requester's inbox is r<number>.*, its replies come to r<number>.<id>. */
static void nats_open(struct load *load, struct connection *conn)
{
    char name[32], subscribe[64] = "";
    if (conn->role == ROLE_REQUESTER) {
        snprintf(subscribe, sizeof subscribe, "SUB r%u.* 1\r\n", conn->number);
    } else if (inbox_name(conn, name, sizeof name)) {
        snprintf(subscribe, sizeof subscribe, "SUB %s 1\r\n", name);
    }
    frame_print(load, conn,
                "CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false,\"lang\":\"c\","
                "\"version\":\"1\",\"protocol\":1,\"headers\":false,\"no_responders\":false}\r\n%sPING\r\n",
                subscribe);
}

/* `subjects`: where to, and where the reply is to go, if one is. */
static void nats_publish(struct load *load, struct connection *conn, const char *subjects, struct slice payload)
{
    char *out = frame_room(load);
    size_t len = (size_t)snprintf(out, COMMAND_ROOM, "PUB %s %zu\r\n", subjects, payload.len);
    memcpy(out + len, payload.data, payload.len);
    memcpy(out + len + payload.len, "\r\n", 2);
    frame_send(load, conn, len + payload.len + 2);
}

static void nats_send(struct load *load, struct connection *conn, uint32_t target, struct slice payload)
{
    char name[32];
    target_name(conn, target, name, sizeof name);
    nats_publish(load, conn, name, payload);
}

static void nats_request(struct load *load, struct connection *conn, uint32_t target, uint32_t id,
                         struct slice payload)
{
    char subjects[64];
    snprintf(subjects, sizeof subjects, "s%u r%u.%u", target, conn->number, id);
    nats_publish(load, conn, subjects, payload);
}

/* MSG SUBJECT SUBSCRIPTION [REPLY] SIZE: the line is cut into words. */
static void nats_message(struct load *load, struct connection *conn, struct slice line, struct slice payload)
{
    char text[128], *rest = NULL;
    snprintf(text, sizeof text, "%.*s", (int)line.len, line.data);
    strtok_r(text, " ", &rest);
    const char *subject = strtok_r(NULL, " ", &rest);
    strtok_r(NULL, " ", &rest);
    const char *reply = strtok_r(NULL, " ", &rest);
    if (conn->role == ROLE_RESPONDER && reply) {
        nats_publish(load, conn, reply, payload);
    } else if (conn->role == ROLE_REQUESTER && subject && strchr(subject, '.')) {
        load->hooks->on_reply(load, conn, (uint32_t)strtoul(strchr(subject, '.') + 1, NULL, 10), payload);
    } else {
        load->hooks->on_message(load, conn, payload);
    }
}

static size_t nats_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    size_t at = 0;
    while (at < len && conn->fd >= 0) {
        const char *line = data + at;
        const char *end = memchr(line, '\n', len - at);
        if (!end) {
            break;
        }
        size_t size = (size_t)(end - line) + 1;
        if (size < 4) {
            fail("NATS sent what is none of its protocol");
        } else if (memcmp(line, "MSG ", 4) == 0) {
            const char *number = end; /* the last word */
            while (number[-1] != ' ') {
                number--;
            }
            size_t payload = strtoul(number, NULL, 10);
            if (len - at - size < payload + 2) {
                break;
            }
            if (conn->role == ROLE_SESSION || conn->role == ROLE_SUBSCRIBER) {
                load->hooks->on_message(load, conn, slice_from(line + size, payload));
            } else {
                nats_message(load, conn, slice_from(line, size), slice_from(line + size, payload));
            }
            size += payload + 2;
        } else if (memcmp(line, "PING", 4) == 0) {
            frame_print(load, conn, "PONG\r\n");
        } else if (memcmp(line, "PONG", 4) == 0) {
            connection_ready(load, conn);
        } else if (memcmp(line, "-ERR", 4) == 0) {
            fail("NATS says %.*s", (int)size - 2, line);
        } else {
            load->others++;
        }
        at += size;
    }
    return at;
}

const struct dialect dialect_nats = {
    .name = "nats",
    .binary = true,
    .stream = true,
    .addressed = true,
    .path = root_path,
    .on_open = nats_open,
    .on_data = nats_data,
    .send = nats_send,
    .request = nats_request,
};

/* ---- MQTT */

static size_t mqtt_length(char *out, size_t len)
{
    size_t at = 0;
    do {
        out[at++] = (char)((len & 0x7f) | (len > 0x7f ? 0x80 : 0));
        len >>= 7;
    } while (len > 0);
    return at;
}

static size_t mqtt_string(char *out, const char *text)
{
    size_t len = strlen(text);
    out[0] = (char)(len >> 8);
    out[1] = (char)len;
    memcpy(out + 2, text, len);
    return 2 + len;
}

static void mqtt_open(struct load *load, struct connection *conn)
{
    static const char head[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2 /* clean session */, 0, 0 /* no keep-alive */};
    char id[32], *out = frame_room(load);
    snprintf(id, sizeof id, "bench%ld", (long)(conn - load->connections));
    size_t at = 0;
    out[at++] = 0x10;
    at += mqtt_length(out + at, sizeof head + 2 + strlen(id));
    memcpy(out + at, head, sizeof head);
    at += sizeof head;
    at += mqtt_string(out + at, id);
    frame_send(load, conn, at);
}

static void mqtt_subscribe(struct load *load, struct connection *conn)
{
    char name[32], *out = frame_room(load);
    if (!inbox_name(conn, name, sizeof name)) {
        connection_ready(load, conn);
        return;
    }
    size_t at = 0;
    out[at++] = (char)0x82;
    at += mqtt_length(out + at, 2 + 2 + strlen(name) + 1);
    out[at++] = 0;
    out[at++] = 1;
    at += mqtt_string(out + at, name);
    out[at++] = 0;
    frame_send(load, conn, at);
}

static void mqtt_send(struct load *load, struct connection *conn, uint32_t target, struct slice payload)
{
    char name[32], *out = frame_room(load);
    size_t at = 0, len = target_name(conn, target, name, sizeof name);
    out[at++] = 0x30;
    at += mqtt_length(out + at, 2 + len + payload.len);
    at += mqtt_string(out + at, name);
    memcpy(out + at, payload.data, payload.len);
    frame_send(load, conn, at + payload.len);
}

static void mqtt_packet(struct load *load, struct connection *conn, unsigned type, const char *data,
                        size_t len)
{
    if (type == 3) {
        size_t topic = 2 + ((size_t)(unsigned char)data[0] << 8) + (unsigned char)data[1];
        load->hooks->on_message(load, conn, slice_from(data + topic, len - topic));
    } else if (type == 2) {
        mqtt_subscribe(load, conn);
    } else if (type == 9) {
        connection_ready(load, conn);
    } else {
        load->others++;
    }
}

static size_t mqtt_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    size_t at = 0;
    while (len - at >= 2 && conn->fd >= 0) {
        size_t size = 0, start = at + 1;
        unsigned shift = 0;
        unsigned char byte = 0x80;
        for (; byte & 0x80 && start < len; shift += 7) {
            byte = (unsigned char)data[start++];
            size |= (size_t)(byte & 0x7f) << shift;
        }
        if (byte & 0x80 || len - start < size) {
            break;
        }
        mqtt_packet(load, conn, (unsigned char)data[at] >> 4, data + start, size);
        at = start + size;
    }
    return at;
}

const struct dialect dialect_mqtt = {
    .name = "mqtt",
    .subprotocol = "mqtt",
    .binary = true,
    .stream = true,
    .addressed = true,
    .path = root_path,
    .on_open = mqtt_open,
    .on_data = mqtt_data,
    .send = mqtt_send,
};

/* ---- Socket.IO */

static void socketio_path(const struct connection *conn, char *out, size_t size)
{
    (void)conn;
    snprintf(out, size, "/socket.io/?EIO=4&transport=websocket");
}

static void socketio_open(struct load *load, struct connection *conn)
{
    (void)load;
    (void)conn; /* the server speaks first */
}

/* A packet whose last argument is the payload; `head` is what comes before that. */
static void socketio_packet(struct load *load, struct connection *conn, const char *head, struct slice payload)
{
    char *out = frame_room(load);
    size_t len = (size_t)snprintf(out, COMMAND_ROOM, "%s\"", head);
    memcpy(out + len, payload.data, payload.len);
    memcpy(out + len + payload.len, "\"]", 2);
    frame_send(load, conn, len + payload.len + 2);
}

static void socketio_send(struct load *load, struct connection *conn, uint32_t target, struct slice payload)
{
    char name[32], head[64];
    target_name(conn, target, name, sizeof name);
    snprintf(head, sizeof head, "42[\"send\",\"%s\",", name);
    socketio_packet(load, conn, head, payload);
}

/* An event with an acknowledgement: 42ID[...], answered by 43ID[...]. */
static void socketio_request(struct load *load, struct connection *conn, uint32_t target, uint32_t id,
                             struct slice payload)
{
    char head[64];
    snprintf(head, sizeof head, "42%u[\"request\",\"s%u\",", id, target);
    socketio_packet(load, conn, head, payload);
}

/* False when it is neither a request nor the answer to one. */
static bool socketio_acknowledged(struct load *load, struct connection *conn, const char *data, size_t len)
{
    static const char request[] = "[\"request\",\"", reply[] = "[\"";
    char text[32], *end;
    snprintf(text, sizeof text, "%.*s", (int)(len < 31 ? len : 31), data);
    if (len < 6 || data[0] != '4' || (data[1] != '2' && data[1] != '3')) {
        return false;
    }
    unsigned long id = strtoul(text + 2, &end, 10);
    size_t at = (size_t)(end - text);
    const char *head = data[1] == '2' ? request : reply;
    if (at == 2 || len < at + strlen(head) + 2) {
        return false;
    }
    if (memcmp(data + at, head, strlen(head)) != 0) { /* not answered in time */
        load->hooks->on_reply(load, conn, (uint32_t)id, slice_from(NULL, 0));
        return true;
    }
    struct slice payload = slice_from(data + at + strlen(head), len - at - strlen(head) - 2);
    if (data[1] == '3') {
        load->hooks->on_reply(load, conn, (uint32_t)id, payload);
        return true;
    }
    snprintf(text, sizeof text, "43%lu[", id);
    socketio_packet(load, conn, text, payload);
    return true;
}

static size_t socketio_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    static const char message[] = "42[\"m\",\"";
    char name[32];
    if (len > sizeof message + 1 && memcmp(data, message, sizeof message - 1) == 0) {
        load->hooks->on_message(load, conn, slice_from(data + sizeof message - 1, len - sizeof message - 1));
    } else if (len > 0 && data[0] == '2') {
        frame_print(load, conn, "3");
    } else if (len > 0 && data[0] == '0') {
        frame_print(load, conn, "40");
    } else if (len > 1 && memcmp(data, "40", 2) == 0) {
        if (inbox_name(conn, name, sizeof name)) {
            frame_print(load, conn, "420[\"join\",\"%s\"]", name);
        } else {
            connection_ready(load, conn);
        }
    } else if (len > 2 && memcmp(data, "430[]", 5 < len ? 5 : len) == 0) {
        connection_ready(load, conn);
    } else if (conn->state != STATE_READY || !socketio_acknowledged(load, conn, data, len)) {
        load->others++;
    }
    return len;
}

const struct dialect dialect_socketio = {
    .name = "socketio",
    .addressed = true,
    .path = socketio_path,
    .on_open = socketio_open,
    .on_data = socketio_data,
    .send = socketio_send,
    .request = socketio_request,
};
