/* Switchboard's structured faces and its HTTP API, as far as a measurement needs them. Payloads hold nothing that JSON
 * would escape. */
#include "bench/load.h"
#include "proto/mp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void connect_path(const struct connection *conn, char *out, size_t size)
{
    if (conn->role == ROLE_SESSION || conn->role == ROLE_RESPONDER) {
        snprintf(out, size, "/connect?session=s%u", conn->number);
    } else if (conn->role == ROLE_IDLE && conn->topic == UINT32_MAX) {
        snprintf(out, size, "/connect?session=i%u", conn->number);
    } else {
        snprintf(out, size, "/connect");
    }
}

static void connect_open(struct load *load, struct connection *conn)
{
    (void)load;
    (void)conn; /* the server speaks first */
}

static bool is_on_topic(const struct connection *conn)
{
    return conn->role == ROLE_SUBSCRIBER || (conn->role == ROLE_IDLE && conn->topic != UINT32_MAX);
}

/* ---- JSON */

static size_t put(char *out, const char *text)
{
    size_t len = strlen(text);
    memcpy(out, text, len);
    return len;
}

static void json_send_around(struct load *load, struct connection *conn, const char *head,
                             struct slice payload)
{
    char *out = frame_room(load);
    size_t len = put(out, head);
    memcpy(out + len, payload.data, payload.len);
    len += payload.len;
    len += put(out + len, "\"}");
    frame_send(load, conn, len);
}

static void json_send(struct load *load, struct connection *conn, uint32_t target, struct slice payload)
{
    char head[96];
    if (conn->role == ROLE_PUBLISHER) {
        snprintf(head, sizeof head, "{\"cmd\":\"publish\",\"topic\":\"t%u\",\"text\":\"", target);
    } else {
        snprintf(head, sizeof head, "{\"cmd\":\"send\",\"to\":\"session:s%u\",\"text\":\"", target);
    }
    json_send_around(load, conn, head, payload);
}

static void json_request(struct load *load, struct connection *conn, uint32_t target, uint32_t id,
                         struct slice payload)
{
    char head[128];
    snprintf(head, sizeof head, "{\"id\":%u,\"cmd\":\"request\",\"to\":\"session:s%u\",\"text\":\"", id,
             target);
    json_send_around(load, conn, head, payload);
}

/* The text of `key` (with its quotes and colon), as it stands between quotes; data NULL: not there. */
static struct slice json_text_of(const char *line, size_t len, const char *key)
{
    const char *at = memmem(line, len, key, strlen(key));
    if (!at) {
        return slice_from(NULL, 0);
    }
    at += strlen(key);
    const char *end = memchr(at, '"', (size_t)(line + len - at));
    return slice_from(end ? at : NULL, end ? (size_t)(end - at) : 0);
}

static bool begins(const char *line, size_t len, const char *head)
{
    return len >= strlen(head) && memcmp(line, head, strlen(head)) == 0;
}

static void json_line(struct load *load, struct connection *conn, const char *line, size_t len)
{
    if (begins(line, len, "{\"push\":\"message\"")) {
        load->hooks->on_message(load, conn, json_text_of(line, len, "\"text\":\""));
    } else if (begins(line, len, "{\"push\":\"request\"")) {
        struct slice id = json_text_of(line, len, "\"request\":\"");
        char head[192];
        snprintf(head, sizeof head, "{\"cmd\":\"reply\",\"request\":\"%.*s\",\"text\":\"", (int)id.len,
                 id.data);
        json_send_around(load, conn, head, json_text_of(line, len, "\"text\":\""));
    } else if (begins(line, len, "{\"push\":\"hello\"")) {
        if (!is_on_topic(conn)) {
            connection_ready(load, conn);
            return;
        }
        frame_print(load, conn, "{\"id\":1,\"cmd\":\"subscribe\",\"topic\":\"%c%u\"}",
                    conn->role == ROLE_IDLE ? 'i' : 't', conn->topic);
    } else if (begins(line, len, "{\"id\":") && conn->role == ROLE_REQUESTER) {
        load->hooks->on_reply(load, conn, (uint32_t)strtoul(line + 6, NULL, 10),
                              json_text_of(line, len, "\"text\":\""));
    } else if (begins(line, len, "{\"id\":1,\"ok\"") && is_on_topic(conn)) {
        connection_ready(load, conn);
    } else {
        load->others++;
    }
}

static size_t json_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    for (size_t at = 0; at < len && conn->fd >= 0;) {
        const char *end = memchr(data + at, '\n', len - at);
        size_t size = end ? (size_t)(end - data) - at : len - at;
        json_line(load, conn, data + at, size);
        at += size + 1;
    }
    return len;
}

const struct dialect dialect_json = {
    .name = "json",
    .subprotocol = "switchboard.json.v1",
    .addressed = true,
    .path = connect_path,
    .on_open = connect_open,
    .on_data = json_data,
    .send = json_send,
    .request = json_request,
};

/* ---- MessagePack */

/* Strings and numbers are written in their longest forms where that spares a decision. */
static size_t mp_put(char *out, const char *text)
{
    out[0] = (char)(0xa0 | strlen(text)); /* up to 31 bytes */
    return 1 + put(out + 1, text);
}

static size_t mp_put_long(char *out, struct slice text)
{
    out[0] = (char)0xdb;
    for (int i = 0; i < 4; i++) {
        out[1 + i] = (char)(text.len >> (24 - 8 * i));
    }
    memcpy(out + 5, text.data, text.len);
    return 5 + text.len;
}

static size_t mp_put_u32(char *out, uint32_t value)
{
    out[0] = (char)0xce;
    for (int i = 0; i < 4; i++) {
        out[1 + i] = (char)(value >> (24 - 8 * i));
    }
    return 5;
}

static size_t mp_put_name(char *out, const char *format, uint32_t number)
{
    char name[32];
    snprintf(name, sizeof name, format, number);
    return mp_put(out, name);
}

static void msgpack_send(struct load *load, struct connection *conn, uint32_t target, struct slice payload)
{
    char *out = frame_room(load);
    size_t len = 0;
    bool publish = conn->role == ROLE_PUBLISHER;
    out[len++] = (char)0x83;
    len += mp_put(out + len, "cmd");
    len += mp_put(out + len, publish ? "publish" : "send");
    len += mp_put(out + len, publish ? "topic" : "to");
    len += publish ? mp_put_name(out + len, "t%u", target) : mp_put_name(out + len, "session:s%u", target);
    len += mp_put(out + len, "text");
    len += mp_put_long(out + len, payload);
    frame_send(load, conn, len);
}

static void msgpack_request(struct load *load, struct connection *conn, uint32_t target, uint32_t id,
                            struct slice payload)
{
    char *out = frame_room(load);
    size_t len = 0;
    out[len++] = (char)0x84;
    len += mp_put(out + len, "id");
    len += mp_put_u32(out + len, id);
    len += mp_put(out + len, "cmd");
    len += mp_put(out + len, "request");
    len += mp_put(out + len, "to");
    len += mp_put_name(out + len, "session:s%u", target);
    len += mp_put(out + len, "text");
    len += mp_put_long(out + len, payload);
    frame_send(load, conn, len);
}

static void msgpack_subscribe(struct load *load, struct connection *conn)
{
    char *out = frame_room(load);
    size_t len = 0;
    out[len++] = (char)0x83;
    len += mp_put(out + len, "id");
    out[len++] = 1;
    len += mp_put(out + len, "cmd");
    len += mp_put(out + len, "subscribe");
    len += mp_put(out + len, "topic");
    len += mp_put_name(out + len, conn->role == ROLE_IDLE ? "i%u" : "t%u", conn->topic);
    frame_send(load, conn, len);
}

static void msgpack_reply(struct load *load, struct connection *conn, struct slice request,
                          struct slice payload)
{
    char *out = frame_room(load);
    size_t len = 0;
    out[len++] = (char)0x83;
    len += mp_put(out + len, "cmd");
    len += mp_put(out + len, "reply");
    len += mp_put(out + len, "request");
    len += mp_put_long(out + len, request);
    len += mp_put(out + len, "text");
    len += mp_put_long(out + len, payload);
    frame_send(load, conn, len);
}

struct mp_frame {
    struct slice push, text, request;
    uint64_t id;
    bool ok;
};

static bool mp_frame_read(struct mp_reader *reader, struct mp_frame *frame)
{
    uint32_t fields;
    if (!mp_read_map(reader, &fields)) {
        return false;
    }
    while (fields-- > 0) {
        struct slice key;
        bool good = mp_read_str(reader, &key);
        if (good && slice_is(key, "push")) {
            good = mp_read_str(reader, &frame->push);
        } else if (good && slice_is(key, "text")) {
            good = mp_read_str(reader, &frame->text);
        } else if (good && slice_is(key, "request")) {
            good = mp_read_str(reader, &frame->request);
        } else if (good && slice_is(key, "id")) {
            good = mp_read_uint(reader, &frame->id);
        } else if (good && slice_is(key, "ok")) {
            frame->ok = true;
            good = mp_frame_read(reader, frame); /* the reply's text lies inside */
        } else if (good) {
            good = mp_skip(reader);
        }
        if (!good) {
            return false;
        }
    }
    return true;
}

static void msgpack_frame(struct load *load, struct connection *conn, const struct mp_frame *frame)
{
    if (slice_is(frame->push, "message")) {
        load->hooks->on_message(load, conn, frame->text);
    } else if (slice_is(frame->push, "request")) {
        msgpack_reply(load, conn, frame->request, frame->text);
    } else if (slice_is(frame->push, "hello") && is_on_topic(conn)) {
        msgpack_subscribe(load, conn);
    } else if (slice_is(frame->push, "hello") || (frame->ok && is_on_topic(conn))) {
        connection_ready(load, conn);
    } else if (frame->id > 0 && conn->role == ROLE_REQUESTER) {
        load->hooks->on_reply(load, conn, (uint32_t)frame->id, frame->ok ? frame->text : slice_from(NULL, 0));
    } else {
        load->others++;
    }
}

static size_t msgpack_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    struct mp_reader reader = {.at = (const unsigned char *)data, .end = (const unsigned char *)data + len};
    while (reader.at < reader.end && conn->fd >= 0) {
        struct mp_frame frame = {.id = 0};
        if (!mp_frame_read(&reader, &frame)) {
            fail("the server sent what is no MessagePack frame");
        }
        msgpack_frame(load, conn, &frame);
    }
    return len;
}

const struct dialect dialect_msgpack = {
    .name = "msgpack",
    .subprotocol = "switchboard.msgpack.v1",
    .binary = true,
    .addressed = true,
    .path = connect_path,
    .on_open = connect_open,
    .on_data = msgpack_data,
    .send = msgpack_send,
    .request = msgpack_request,
};

/* ---- HTTP */

static void http_request(struct load *load, struct connection *conn, uint32_t target, uint32_t id,
                         struct slice payload)
{
    char *out = frame_room(load);
    int head = snprintf(out, COMMAND_ROOM,
                        "POST /v1/request/session:s%u?timeout=5s HTTP/1.1\r\nHost: localhost\r\n"
                        "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n",
                        target, payload.len);
    memcpy(out + head, payload.data, payload.len);
    conn->request = id;
    connection_write(load, conn, out, (size_t)head + payload.len);
}

static size_t http_data(struct load *load, struct connection *conn, const char *data, size_t len)
{
    const char *end = memmem(data, len, "\r\n\r\n", 4);
    if (!end) {
        return 0;
    }
    size_t head = (size_t)(end - data) + 4, body = 0;
    for (const char *line = data; line < end; line = (const char *)memchr(line, '\n', len) + 1) {
        if (strncasecmp(line, "content-length:", 15) == 0) {
            body = strtoul(line + 15, NULL, 10);
        }
    }
    if (len - head < body) {
        return 0;
    }
    bool good = memcmp(data, "HTTP/1.1 200", 12) == 0;
    load->hooks->on_reply(load, conn, conn->request, slice_from(good ? data + head : NULL, good ? body : 0));
    return head + body;
}

const struct dialect dialect_http = {
    .name = "http",
    .http = true,
    .on_data = http_data,
    .request = http_request,
};
