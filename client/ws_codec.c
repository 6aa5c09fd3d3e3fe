#include "client/ws_codec.h"

#include "base/utf8.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

/* ---- handshake ----------------------------------------------------------------------------------------- */

bool ws_write_request(const struct ws_request *request, struct buffer *out)
{
    buffer_printf(out,
                  "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: %s\r\n"
                  "User-Agent: %s\r\n",
                  request->path, request->host, request->key, request->subprotocol, request->agent);
    if (request->token)
        buffer_printf(out, "Authorization: Bearer %s\r\n", request->token);
    buffer_append_text(out, "\r\n");
    return !out->failed;
}

void ws_accept(const char *key, char out[static WS_ACCEPT_SIZE])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[WS_KEY_SIZE + sizeof guid];
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    size_t key_len = strnlen(key, WS_KEY_SIZE - 1);

    memcpy(text, key, key_len);
    memcpy(text + key_len, guid, sizeof guid);
    if (!EVP_Digest(text, key_len + sizeof guid - 1, digest, &digest_len, EVP_sha1(), NULL))
        digest_len = 0; /* the answer then matches nothing */
    memset(out, 0, WS_ACCEPT_SIZE);
    EVP_EncodeBlock((unsigned char *)out, digest, (int)(digest_len > 20 ? 20 : digest_len));
}

/* One header line, cut into name and value without the whitespace around. */
struct field {
    const char *name, *value;
    size_t name_len, value_len;
};

static bool field_read(const char *line, size_t len, struct field *field)
{
    const char *colon = memchr(line, ':', len);

    if (!colon)
        return false;
    const char *end = line + len;
    const char *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *field = (struct field){line, value, (size_t)(colon - line), (size_t)(end - value)};
    return true;
}

static bool text_is(const char *text, size_t len, const char *expected)
{
    return len == strlen(expected) && strncasecmp(text, expected, len) == 0;
}

/* A comma-separated list holds `token`. */
static bool list_has(const char *list, size_t len, const char *token)
{
    while (len) {
        const char *comma = memchr(list, ',', len);
        size_t part = comma ? (size_t)(comma - list) : len;
        const char *from = list;
        size_t from_len = part;
        while (from_len && (*from == ' ' || *from == '\t'))
            from++, from_len--;
        while (from_len && (from[from_len - 1] == ' ' || from[from_len - 1] == '\t'))
            from_len--;
        if (text_is(from, from_len, token))
            return true;
        part += comma ? 1 : 0;
        list += part;
        len -= part;
    }
    return false;
}

static unsigned read_number(const char *text, size_t len)
{
    unsigned value = 0;

    if (!len || len > 9)
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value;
}

struct handshake {
    bool upgrade, connection, accept, subprotocol, extensions;
    unsigned retry_after;
};

static void read_field(const struct field *field, const char *expected, const char *subprotocol,
                       struct handshake *seen)
{
    const char *value = field->value;
    size_t len = field->value_len;

    if (text_is(field->name, field->name_len, "Upgrade"))
        seen->upgrade = text_is(value, len, "websocket");
    else if (text_is(field->name, field->name_len, "Connection"))
        seen->connection = seen->connection || list_has(value, len, "Upgrade");
    else if (text_is(field->name, field->name_len, "Sec-WebSocket-Accept"))
        seen->accept = len == strlen(expected) && memcmp(value, expected, len) == 0;
    else if (text_is(field->name, field->name_len, "Sec-WebSocket-Protocol"))
        seen->subprotocol = len == strlen(subprotocol) && memcmp(value, subprotocol, len) == 0;
    else if (text_is(field->name, field->name_len, "Sec-WebSocket-Extensions"))
        seen->extensions = true;
    else if (text_is(field->name, field->name_len, "Retry-After"))
        seen->retry_after = read_number(value, len);
}

static const char *find_problem(int status, const struct handshake *seen)
{
    if (status != 101)
        return "the server refused the connection";
    if (!seen->upgrade || !seen->connection)
        return "the server does not speak WebSocket here";
    if (!seen->accept)
        return "the server's Sec-WebSocket-Accept is wrong";
    if (!seen->subprotocol)
        return "the server does not speak the wanted subprotocol";
    if (seen->extensions)
        return "the server chose an extension that was not offered";
    return NULL;
}

static int read_status(const char *line, size_t len)
{
    static const char version[] = "HTTP/1.";
    size_t at = sizeof version; /* behind the minor version's digit */

    if (len < at + 4 || memcmp(line, version, sizeof version - 1) != 0 || line[at] != ' ')
        return 0;
    return (int)read_number(line + at + 1, 3);
}

bool ws_read_response(const char *data, size_t len, const char *key, const char *subprotocol,
                      struct ws_response *response)
{
    const char *end = len ? memmem(data, len, "\r\n\r\n", 4) : NULL;
    char expected[WS_ACCEPT_SIZE];
    struct handshake seen = {.upgrade = false};

    *response = (struct ws_response){.status = 0};
    if (len >= 4 && memcmp(data, "HTTP", 4) != 0) {
        response->problem = "the server does not speak HTTP";
        return true;
    }
    if (!end) {
        response->problem = "the server's answer is too long";
        return len > WS_RESPONSE_MAX;
    }
    response->len = (size_t)(end - data) + 4;
    ws_accept(key, expected);
    for (const char *line = data; line < end + 2;) {
        const char *next = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
        size_t line_len = (size_t)(next - line);
        struct field field;
        if (line == data)
            response->status = read_status(line, line_len);
        else if (field_read(line, line_len, &field))
            read_field(&field, expected, subprotocol, &seen);
        line = next + 2;
    }
    response->retry_after = seen.retry_after;
    response->problem = find_problem(response->status, &seen);
    return true;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

enum { BIT_FINAL = 0x80, BITS_RESERVED = 0x70, BIT_MASK = 0x80, LEN_16 = 126, LEN_64 = 127 };

size_t ws_write_header(enum ws_opcode opcode, size_t payload_len, const unsigned char mask[static 4],
                       unsigned char out[static WS_HEADER_MAX])
{
    size_t width = payload_len < LEN_16 ? 0 : payload_len <= UINT16_MAX ? 2 : 8;

    out[0] = (unsigned char)(BIT_FINAL | (unsigned)opcode);
    out[1] = (unsigned char)(BIT_MASK | (width == 0 ? payload_len : width == 2 ? LEN_16 : LEN_64));
    for (size_t i = 0; i < width; i++)
        out[2 + i] = (unsigned char)((uint64_t)payload_len >> (8 * (width - 1 - i)));
    memcpy(out + 2 + width, mask, 4);
    return 2 + width + 4;
}

void ws_mask(unsigned char *to, const unsigned char *from, size_t len, const unsigned char mask[static 4],
             size_t at)
{
    for (size_t i = 0; i < len; i++)
        to[i] = from[i] ^ mask[(at + i) & 3];
}

/* ---- reading ------------------------------------------------------------------------------------------- */

void ws_parser_init(struct ws_parser *parser, size_t max_message)
{
    *parser = (struct ws_parser){.max_message = max_message, .header_need = 2};
    buffer_init(&parser->message, max_message);
}

void ws_parser_close(struct ws_parser *parser)
{
    buffer_close(&parser->message);
}

static void broken(struct ws_event *event, int code, const char *why)
{
    *event = (struct ws_event){.type = WS_BROKEN, .code = code, .data = why, .len = strlen(why)};
}

/* Reads the length behind the first two bytes of the header; NULL or what is wrong. */
static const char *read_length(struct ws_parser *parser)
{
    size_t width = parser->header_need - 2;
    uint64_t len = parser->header[1] & 0x7f;

    if (width) {
        len = 0;
        for (size_t i = 0; i < width; i++)
            len = len << 8 | parser->header[2 + i];
        if (len < (width == 2 ? LEN_16 : UINT16_MAX + 1))
            return "a frame's length is not in its shortest form";
    }
    if (len >> 63)
        return "a frame's length is negative";
    parser->left = len;
    return NULL;
}

static const char *check_opcode(const struct ws_parser *parser)
{
    switch (parser->opcode) {
    case WS_CONTINUATION:
        return parser->in_message ? NULL : "a continuation without a beginning";
    case WS_TEXT:
    case WS_BINARY:
        return parser->in_message ? "a message began inside another" : NULL;
    case WS_CLOSE:
    case WS_PING:
    case WS_PONG:
        return !parser->final                  ? "a control frame is fragmented"
               : parser->left > WS_CONTROL_MAX ? "a control frame is too long"
                                               : NULL;
    }
    return "a frame of an unknown type";
}

/* The header is complete. False: the event says what is wrong. */
static bool begin_payload(struct ws_parser *parser, struct ws_event *event)
{
    const char *wrong = read_length(parser);

    parser->opcode = (enum ws_opcode)(parser->header[0] & 0x0f);
    parser->final = parser->header[0] & BIT_FINAL;
    if (!wrong && (parser->header[0] & BITS_RESERVED))
        wrong = "reserved bits are set in a frame";
    if (!wrong && (parser->header[1] & BIT_MASK))
        wrong = "the server masked a frame";
    if (!wrong)
        wrong = check_opcode(parser);
    if (wrong) {
        broken(event, 1002, wrong);
        return false;
    }
    if (parser->opcode < WS_CLOSE && parser->left > parser->max_message - parser->message.len) {
        broken(event, 1009, "a message is larger than the limit");
        return false;
    }
    if (parser->opcode == WS_TEXT || parser->opcode == WS_BINARY) {
        parser->message_opcode = parser->opcode;
        parser->in_message = true;
    }
    parser->control_len = 0;
    parser->in_payload = true;
    return true;
}

static bool close_code_valid(int code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static void end_close(struct ws_parser *parser, struct ws_event *event)
{
    const char *reason = (const char *)parser->control + 2;

    if (parser->control_len == 0) {
        *event = (struct ws_event){.type = WS_CLOSED, .code = 1005, .data = ""};
        return;
    }
    int code = parser->control_len == 1 ? 0 : parser->control[0] << 8 | parser->control[1];
    if (!close_code_valid(code)) {
        broken(event, 1002, "a close frame without a valid code");
        return;
    }
    size_t len = parser->control_len - 2;
    if (!utf8_valid(reason, len)) {
        broken(event, 1007, "a close frame's reason is not UTF-8");
        return;
    }
    *event = (struct ws_event){.type = WS_CLOSED, .code = code, .data = reason, .len = len};
}

static void end_message(struct ws_parser *parser, struct ws_event *event)
{
    const struct buffer *message = &parser->message;

    parser->in_message = false;
    if (parser->message_opcode == WS_TEXT && !utf8_valid(message->data, message->len)) {
        broken(event, 1007, "a text message is not UTF-8");
        return;
    }
    *event = (struct ws_event){.type = WS_MESSAGE,
                               .opcode = parser->message_opcode,
                               .data = message->len ? message->data : "",
                               .len = message->len};
}

/* The frame is complete. */
static void end_payload(struct ws_parser *parser, struct ws_event *event)
{
    parser->in_payload = false;
    parser->header_len = 0;
    parser->header_need = 2;
    if (parser->opcode == WS_CLOSE)
        end_close(parser, event);
    else if (parser->opcode == WS_PING || parser->opcode == WS_PONG)
        *event = (struct ws_event){.type = parser->opcode == WS_PING ? WS_PINGED : WS_PONGED,
                                   .data = (const char *)parser->control,
                                   .len = parser->control_len};
    else if (parser->final)
        end_message(parser, event);
}

static size_t feed_header(struct ws_parser *parser, const char *data, size_t len)
{
    size_t take = parser->header_need - parser->header_len;

    take = take < len ? take : len;
    memcpy(parser->header + parser->header_len, data, take);
    parser->header_len += take;
    if (parser->header_len == 2) {
        unsigned code = parser->header[1] & 0x7f;
        parser->header_need = code == LEN_16 ? 4 : code == LEN_64 ? 10 : 2;
    }
    return take;
}

/* False when memory is short. */
static bool feed_payload(struct ws_parser *parser, const char *data, size_t len)
{
    parser->left -= len;
    if (parser->opcode < WS_CLOSE)
        return !len || buffer_append(&parser->message, data, len);
    memcpy(parser->control + parser->control_len, data, len);
    parser->control_len += len;
    return true;
}

size_t ws_parser_feed(struct ws_parser *parser, const char *data, size_t len, struct ws_event *event)
{
    size_t at = 0;

    *event = (struct ws_event){.type = WS_MORE};
    if (!parser->in_message)
        buffer_clear(&parser->message);
    do {
        if (!parser->in_payload) {
            at += feed_header(parser, data + at, len - at);
            if (parser->header_len < parser->header_need)
                continue;
            if (!begin_payload(parser, event))
                return at;
        }
        size_t take = len - at < parser->left ? len - at : (size_t)parser->left;
        if (!feed_payload(parser, data + at, take)) {
            broken(event, 1011, "memory is short");
            return at;
        }
        at += take;
        if (!parser->left)
            end_payload(parser, event);
    } while (at < len && event->type == WS_MORE);
    return at;
}
