/* The input is read three ways: as a handshake's response, as frames in one piece, and as the same frames byte by byte; the
 * last two must agree. */
#include "client/ws_codec.h"
#include "fuzz.h"

#include <string.h>

enum { EVENTS_MAX = 64, LIMIT = 4096 };

struct trace {
    size_t count;
    struct {
        int type, code;
        size_t len;
        unsigned char first;
    } events[EVENTS_MAX];
};

static void read_frames(const char *data, size_t size, size_t step, struct trace *trace)
{
    struct ws_parser parser;
    struct ws_event event = {.type = WS_MORE};

    ws_parser_init(&parser, LIMIT);
    for (size_t at = 0;
         at < size && event.type != WS_BROKEN && event.type != WS_CLOSED && trace->count < EVENTS_MAX;) {
        size_t part = size - at < step ? size - at : step;
        size_t used = ws_parser_feed(&parser, data + at, part, &event);
        fuzz_require(used > 0 && used <= part);
        fuzz_require(event.type != WS_MESSAGE || event.len <= LIMIT);
        at += used;
        if (event.type == WS_MORE)
            continue;
        trace->events[trace->count].type = (int)event.type;
        trace->events[trace->count].code = event.code;
        trace->events[trace->count].len = event.len;
        trace->events[trace->count++].first = event.len ? (unsigned char)event.data[0] : 0;
    }
    ws_parser_close(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trace whole, bytes;
    struct ws_response response;
    const char *text = (const char *)data;

    memset(&whole, 0, sizeof whole);
    memset(&bytes, 0, sizeof bytes);
    if (ws_read_response(text, size, "dGhlIHNhbXBsZSBub25jZQ==", "switchboard.json.v1", &response))
        fuzz_require(response.len <= size && (response.problem || response.status == 101));
    read_frames(text, size, size, &whole);
    read_frames(text, size, 1, &bytes);
    fuzz_require(memcmp(&whole, &bytes, sizeof whole) == 0);
    return 0;
}
