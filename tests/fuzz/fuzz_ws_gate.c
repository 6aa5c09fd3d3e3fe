/* The first byte says how the rest, a client's frames, is cut into reads. However that is, the same goes on to libwebsockets, the
 * same pings are answered and the same violation is found; and what goes on are frames that break no rule. */
#include "base/buffer.h"
#include "broker/ws_gate.h"
#include "fuzz.h"
#include "proto/errors.h"

#include <string.h>

enum { MAX_MESSAGE = 1000, READ = 400 };

struct run {
    struct ws_gate gate;
    struct buffer passed, pings;
    size_t passed_before; /* the violation */
    int code;
};

static void on_ping(void *data, struct slice payload)
{
    struct run *run = data;
    char len = (char)payload.len;

    fuzz_require(payload.len <= WS_CONTROL_MAX && !run->code);
    fuzz_require(buffer_append(&run->pings, &len, 1) && buffer_append(&run->pings, payload.data, payload.len));
}

static void on_violation(void *data, int code, const char *reason)
{
    struct run *run = data;

    fuzz_require(!run->code && reason && (code == CLOSE_PROTOCOL_ERROR || code == CLOSE_TOO_BIG));
    run->code = code;
}

static bool may_close(void *data)
{
    (void)data;
    return true;
}

static const struct ws_gate_calls calls = {.may_close = may_close, .on_ping = on_ping, .on_violation = on_violation};

static void run_open(struct run *run, const uint8_t *data, size_t size, size_t step)
{
    unsigned char bytes[READ];

    memset(run, 0, sizeof *run);
    buffer_init(&run->passed, 0);
    buffer_init(&run->pings, 0);
    for (size_t at = 0; at < size;) {
        size_t held = ws_gate_held(&run->gate);
        size_t len = size - at < step ? size - at : step;
        fuzz_require(held < 14);
        len = len < READ - held ? len : READ - held;
        memcpy(bytes + held, data + at, len);
        size_t taken;
        size_t passed = ws_gate_pass(&run->gate, bytes, held, held + len, &taken, MAX_MESSAGE, &calls, run);
        fuzz_require(taken > held && passed <= taken && taken <= held + len);
        fuzz_require(taken == held + len || passed);
        fuzz_require(buffer_append(&run->passed, bytes, passed));
        at += taken - held;
    }
}

static void run_close(struct run *run)
{
    ws_gate_close(&run->gate);
    buffer_close(&run->passed);
    buffer_close(&run->pings);
}

static void check_equal(const struct buffer *a, const struct buffer *b)
{
    fuzz_require(a->len == b->len && (!a->len || memcmp(a->data, b->data, a->len) == 0));
}

static void check_frames(const struct buffer *passed)
{
    const unsigned char *bytes = (const unsigned char *)passed->data;

    for (size_t at = 0; at < passed->len;) {
        unsigned opcode = bytes[at] & 0xf;
        fuzz_require(passed->len - at >= 6 && !(bytes[at] & 0x70) && bytes[at + 1] & 0x80);
        fuzz_require(opcode <= 2 || opcode == 8 || opcode == 10);
        size_t len = bytes[at + 1] & 0x7f, header = 6;
        fuzz_require(opcode < 8 || (len <= WS_CONTROL_MAX && bytes[at] & 0x80));
        if (len == 126) {
            len = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
            header = 8;
        }
        fuzz_require(len <= MAX_MESSAGE);
        at += header + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole, cut;

    if (!size)
        return 0;
    run_open(&whole, data + 1, size - 1, READ);
    run_open(&cut, data + 1, size - 1, data[0] % 32 + 1);
    fuzz_require(whole.code == cut.code);
    check_equal(&whole.pings, &cut.pings);
    check_equal(&whole.passed, &cut.passed);
    check_frames(&whole.passed);
    run_close(&whole);
    run_close(&cut);
    return 0;
}
