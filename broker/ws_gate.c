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

enum verdict { DROP, PASS, COLLECT, VIOLATION };

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

static uint64_t message_size(const struct ws_gate *gate, uint64_t len)
{
    return len > UINT64_MAX - gate->message ? UINT64_MAX : gate->message + len;
}

/* What becomes of a frame, by its header. For a violation `*code` and `*reason` say what it is. */
static enum verdict judge(const struct ws_gate *gate, uint64_t len, uint64_t max_message, int *code, const char **reason)
{
    unsigned opcode = gate->header[0] & OPCODE;

    /* Behind a close frame nothing counts: RFC 6455 section 5.5.1. */
    if (gate->closed)
        return DROP;
    *code = CLOSE_PROTOCOL_ERROR;
    *reason = check_header(gate, len);
    /* The close frame must be sound, since libwebsockets is to read it. */
    if (!*reason && opcode == OP_CLOSE)
        return PASS;
    if (gate->closing)
        return DROP;
    if (*reason)
        return VIOLATION;
    if (opcode >= OP_CLOSE)
        return opcode == OP_PING ? COLLECT : PASS;
    *code = CLOSE_TOO_BIG;
    *reason = "message too big";
    return message_size(gate, len) > max_message ? VIOLATION : PASS;
}

/* Carries a verdict out, as far as it concerns what comes behind the frame. */
static void note_frame(struct ws_gate *gate, enum verdict verdict, uint64_t len)
{
    unsigned opcode = gate->header[0] & OPCODE;

    gate->verdict = (uint8_t)(verdict == VIOLATION ? DROP : verdict);
    gate->closing = gate->closing || verdict == VIOLATION;
    if (verdict != PASS)
        return;
    if (opcode == OP_CLOSE) {
        gate->closing = gate->closed = true;
    } else if (opcode < OP_CLOSE) {
        gate->fragmented = !(gate->header[0] & FIN);
        gate->message = gate->fragmented ? message_size(gate, len) : 0;
    }
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
static size_t begin_frame(struct ws_gate *gate, unsigned char *out, enum verdict verdict,
                          const struct ws_gate_calls *calls, void *data)
{
    size_t size = gate->header_len;
    uint64_t len = payload_len(gate->header);

    note_frame(gate, verdict, len);
    gate->left = len;
    if (verdict == PASS)
        memcpy(out, gate->header, size);
    if (verdict == COLLECT && !len)
        collect(gate, out, 0, calls, data);
    if (!len)
        gate->header_len = 0;
    return verdict == PASS ? size : 0;
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

static bool is_close(const struct ws_gate *gate)
{
    return (gate->header[0] & OPCODE) == OP_CLOSE;
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
        int code = 0;
        const char *reason = NULL;
        enum verdict verdict = judge(gate, payload_len(gate->header), max_message, &code, &reason);
        /* What came before these must have been dealt with by then. */
        bool last = verdict == PASS && is_close(gate);
        bool early = kept && (last || verdict == COLLECT || verdict == VIOLATION);
        if (early || (last && !calls->may_close(data))) {
            at -= gate->header_len;
            gate->header_len = 0;
            break;
        }
        kept += begin_frame(gate, bytes + kept, verdict, calls, data);
        if (verdict == VIOLATION)
            calls->on_violation(data, code, reason);
    }
    *taken = at;
    return kept;
}
