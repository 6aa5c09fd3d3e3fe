#include "broker/ws_gate.h"

#include "base/alloc.h"
#include "proto/errors.h"

#include <string.h>

enum {
    FIN = 0x80,
    RESERVED = 0x70,
    OPCODE = 0x0f,
    MASK = 0x80,
    LENGTH = 0x7f,
    OP_CONTINUATION = 0,
    OP_TEXT = 1,
    OP_BINARY = 2,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10,
};

enum verdict { DROP, PASS, COLLECT };

struct ws_ping {
    uint8_t len;
    unsigned char payload[WS_CONTROL_MAX];
};

void ws_gate_close(struct ws_gate *gate)
{
    mem_free(gate->ping);
    gate->ping = NULL;
}

void ws_gate_shut(struct ws_gate *gate)
{
    gate->closing = true;
}

/* How long the header is, as far as it can be told from what has come of it. */
static size_t header_size(const uint8_t *header, size_t len)
{
    if (len < 2)
        return 2;
    size_t length = (header[1] & LENGTH) == 127 ? 8 : (header[1] & LENGTH) == 126 ? 2 : 0;
    return 2 + length + (header[1] & MASK ? 4 : 0);
}

static uint64_t payload_len(const uint8_t *header)
{
    size_t bytes = (header[1] & LENGTH) == 127 ? 8 : (header[1] & LENGTH) == 126 ? 2 : 0;
    uint64_t len = bytes ? 0 : header[1] & LENGTH;

    for (size_t i = 0; i < bytes; i++)
        len = len << 8 | header[2 + i];
    return len;
}

static bool is_minimal(const uint8_t *header, uint64_t len)
{
    unsigned form = header[1] & LENGTH;

    return form < 126 || (form == 126 ? len >= 126 : len > UINT16_MAX && !(len >> 63));
}

static const char *check_control(unsigned first, uint64_t len)
{
    unsigned opcode = first & OPCODE;

    if (opcode > OP_PONG)
        return "reserved opcode";
    if (!(first & FIN))
        return "fragmented control frame";
    return len > WS_CONTROL_MAX ? "control frame too long" : NULL;
}

/* What is wrong with a frame by its header; NULL when nothing is. */
static const char *check_header(const struct ws_gate *gate, uint64_t len)
{
    unsigned first = gate->header[0];
    unsigned opcode = first & OPCODE;

    if (!(gate->header[1] & MASK))
        return "frame without a mask";
    if (first & RESERVED)
        return "reserved bit";
    if (!is_minimal(gate->header, len))
        return "length in the wrong form";
    if (opcode >= OP_CLOSE)
        return check_control(first, len);
    if (opcode > OP_BINARY)
        return "reserved opcode";
    if (opcode == OP_CONTINUATION && !gate->fragmented)
        return "continuation of no message";
    return opcode != OP_CONTINUATION && gate->fragmented ? "message within a message" : NULL;
}

static void violate(struct ws_gate *gate, int code, const char *reason, const struct ws_gate_calls *calls, void *data)
{
    gate->closing = true;
    calls->on_violation(data, code, reason);
}

/* Data counts towards its message. */
static void count_data(struct ws_gate *gate, uint64_t len, uint64_t max_message, const struct ws_gate_calls *calls,
                       void *data)
{
    gate->fragmented = !(gate->header[0] & FIN);
    if (len > max_message || gate->message > max_message - len)
        violate(gate, CLOSE_TOO_BIG, "message too big", calls, data);
    gate->message = gate->fragmented ? gate->message + len : 0;
}

static enum verdict judge(struct ws_gate *gate, uint64_t len, uint64_t max_message, const struct ws_gate_calls *calls,
                          void *data)
{
    unsigned opcode = gate->header[0] & OPCODE;
    const char *wrong = check_header(gate, len);

    /* Behind a close frame nothing counts: RFC 6455 section 5.5.1. */
    if (gate->closed)
        return DROP;
    /* The close frame must be sound, since libwebsockets is to read it. */
    if (!wrong && opcode == OP_CLOSE) {
        gate->closing = gate->closed = true;
        return PASS;
    }
    if (gate->closing)
        return DROP;
    if (wrong) {
        violate(gate, CLOSE_PROTOCOL_ERROR, wrong, calls, data);
        return DROP;
    }
    if (opcode < OP_CLOSE) {
        count_data(gate, len, max_message, calls, data);
        return gate->closing ? DROP : PASS;
    }
    return opcode == OP_PING ? COLLECT : PASS;
}

static void unmask(unsigned char *bytes, size_t len, const uint8_t *mask, size_t offset)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] ^= mask[(offset + i) & 3];
}

/* A ping mostly comes whole, and then nothing is kept of it. */
static void collect(struct ws_gate *gate, unsigned char *bytes, size_t len, const struct ws_gate_calls *calls, void *data)
{
    size_t so_far = (size_t)(payload_len(gate->header) - gate->left);
    size_t header = header_size(gate->header, sizeof gate->header);
    bool whole = len == gate->left;

    unmask(bytes, len, gate->header + header - 4, so_far);
    if (!gate->ping && whole) {
        calls->on_ping(data, slice_from(bytes, len));
        return;
    }
    if (!gate->ping)
        gate->ping = mem_calloc(1, sizeof *gate->ping);
    /* Without memory a ping goes unanswered. */
    if (!gate->ping)
        return;
    memcpy(gate->ping->payload + gate->ping->len, bytes, len);
    gate->ping->len = (uint8_t)(gate->ping->len + len);
    if (!whole)
        return;
    /* Cut short by a lack of memory, it is none. */
    if (gate->ping->len == payload_len(gate->header))
        calls->on_ping(data, slice_from(gate->ping->payload, gate->ping->len));
    ws_gate_close(gate);
}

static bool in_payload(const struct ws_gate *gate)
{
    return gate->left > 0;
}

size_t ws_gate_held(const struct ws_gate *gate)
{
    return in_payload(gate) ? 0 : gate->header_len;
}

/* A header is complete, and perhaps its frame with it. Returns how much goes on of it. */
static size_t begin_frame(struct ws_gate *gate, unsigned char *out, uint64_t max_message,
                          const struct ws_gate_calls *calls, void *data)
{
    size_t size = gate->header_len;
    uint64_t len = payload_len(gate->header);

    gate->verdict = (uint8_t)judge(gate, len, max_message, calls, data);
    gate->left = len;
    if (gate->verdict == PASS)
        memcpy(out, gate->header, size);
    if (gate->verdict == COLLECT && !len)
        collect(gate, out, 0, calls, data);
    if (!len)
        gate->header_len = 0;
    return gate->verdict == PASS ? size : 0;
}

/* Some of the current payload came. Returns how much goes on of it. */
static size_t take_payload(struct ws_gate *gate, unsigned char *out, unsigned char *bytes, size_t len,
                           const struct ws_gate_calls *calls, void *data)
{
    if (gate->verdict == COLLECT)
        collect(gate, bytes, len, calls, data);
    else if (gate->verdict == PASS && out != bytes)
        memmove(out, bytes, len);
    gate->left -= len;
    if (!gate->left)
        gate->header_len = 0;
    return gate->verdict == PASS ? len : 0;
}

/* A whole header is there. Its frame is answered by us, so what came before must have been seen by then. */
static bool must_wait(const struct ws_gate *gate, size_t kept)
{
    return kept && !gate->closing && (gate->header[0] & OPCODE) == OP_PING;
}

size_t ws_gate_pass(struct ws_gate *gate, unsigned char *bytes, size_t from, size_t len, size_t *taken,
                    uint64_t max_message, const struct ws_gate_calls *calls, void *data)
{
    size_t kept = 0;
    size_t at = from;

    while (at < len) {
        if (in_payload(gate)) {
            size_t part = gate->left < len - at ? (size_t)gate->left : len - at;
            kept += take_payload(gate, bytes + kept, bytes + at, part, calls, data);
            at += part;
            continue;
        }
        gate->header[gate->header_len++] = bytes[at++];
        if (gate->header_len < header_size(gate->header, gate->header_len))
            continue;
        if (must_wait(gate, kept)) {
            at -= gate->header_len;
            gate->header_len = 0;
            break;
        }
        kept += begin_frame(gate, bytes + kept, max_message, calls, data);
    }
    *taken = at;
    return kept;
}
