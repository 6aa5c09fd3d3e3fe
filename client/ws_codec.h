/* The client's side of WebSocket (RFC 6455) as pure functions over bytes: the opening handshake, and frames. */
#ifndef CLIENT_WS_CODEC_H
#define CLIENT_WS_CODEC_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10,
};

enum {
    WS_KEY_SIZE = 25,     /* 24 characters of base64 and a NUL */
    WS_ACCEPT_SIZE = 29,  /* 28 */
    WS_HEADER_MAX = 14,   /* of a masked frame */
    WS_CONTROL_MAX = 125, /* bytes of a control frame's payload */
    WS_RESPONSE_MAX = 16384,
};

/* ---- handshake ----------------------------------------------------------------------------------------- */

struct ws_request {
    const char
        *host; /* as in the URL's authority: with brackets, and the port unless it is the scheme's own */
    const char *path; /* with the query */
    const char *key;  /* 16 random bytes as base64 */
    const char *subprotocol;
    const char *agent;
    const char *token; /* NULL: no Authorization */
};

/* Appends the handshake request. Nothing is escaped: the strings hold no control characters. */
bool ws_write_request(const struct ws_request *request, struct buffer *out);

/* What the server must answer to `key` in Sec-WebSocket-Accept. */
void ws_accept(const char *key, char out[static WS_ACCEPT_SIZE]);

struct ws_response {
    size_t len;           /* bytes of the response; frames follow */
    int status;           /* 0 when it is no HTTP at all */
    unsigned retry_after; /* seconds; 0: not given */
    const char *problem;  /* a constant text; NULL: the WebSocket is open */
};

/* Reads the response once it is whole. False: more bytes are needed. */
bool ws_read_response(const char *data, size_t len, const char *key, const char *subprotocol,
                      struct ws_response *response);

/* ---- frames -------------------------------------------------------------------------------------------- */

/* Writes the header of a final, masked frame; returns its length. */
size_t ws_write_header(enum ws_opcode opcode, size_t payload_len, const unsigned char mask[static 4],
                       unsigned char out[static WS_HEADER_MAX]);

/* Copies `len` bytes, masked; `at` is their position in the payload. */
void ws_mask(unsigned char *to, const unsigned char *from, size_t len, const unsigned char mask[static 4],
             size_t at);

/* Puts what arrives together to messages. */
struct ws_parser {
    size_t max_message; /* bytes */
    unsigned char header[10];
    size_t header_len, header_need;
    bool in_payload;
    enum ws_opcode opcode; /* of the current frame */
    bool final;
    uint64_t left;   /* bytes of the payload still to come */
    bool in_message; /* fragments came already */
    enum ws_opcode message_opcode;
    struct buffer message;
    unsigned char control[WS_CONTROL_MAX];
    size_t control_len;
};

struct ws_event {
    enum {
        WS_MORE,    /* all was read; nothing is complete */
        WS_MESSAGE, /* opcode, data, len; text is valid UTF-8 */
        WS_PINGED,  /* data, len */
        WS_PONGED,
        WS_CLOSED, /* code (1005: none given), data and len: the reason */
        WS_BROKEN, /* code to close with, data and len: why */
    } type;
    enum ws_opcode opcode;
    int code;
    const char *data; /* the parser's, until the next call */
    size_t len;
};

void ws_parser_init(struct ws_parser *parser, size_t max_message);
void ws_parser_close(struct ws_parser *parser);

/* Reads up to the end of the next event or of `data`; returns the number of bytes read. After WS_CLOSED and WS_BROKEN
 * the parser must not be fed any more. */
size_t ws_parser_feed(struct ws_parser *parser, const char *data, size_t len, struct ws_event *event);

#endif
