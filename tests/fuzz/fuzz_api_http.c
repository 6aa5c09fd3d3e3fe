/* The byte stream of a connection to the API's port, over a pair of sockets: all of it at once, and then again in small
 * pieces, which must come to the same answers. Whatever was said, nothing is left of it afterwards.
 *
 * The first byte says how small the pieces are, and whether the client shuts down its side behind the last. */
#include "base/log.h"
#include "broker/api_http_internal.h"
#include "broker/api_internal.h"
#include "fuzz.h"
#include "tests/lib/api_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS = 4, TURNS_AT_END = 40, ANSWERS_MAX = 4096 };

struct outcome {
    struct buffer bytes;
    bool cut; /* by a reset, which may have taken answers along */
    int statuses[ANSWERS_MAX];
    size_t count;
};

static void write_nothing(const char *line, size_t len)
{
    (void)line;
    (void)len;
}

static void open_once(void)
{
    static bool opened;
    void *state;

    if (opened)
        return;
    opened = true;
    log_set_sink(write_nothing);
    fuzz_require(api_fixture_open(&state) == 0);
}

/* ---- the storage's side, and the client's ---- */

static void answer_storage(void)
{
    const struct storage_field fields[] = {{slice_text("instance"), slice_text("a1")}};
    const struct storage_record record = {slice_text("x"), fields, 1};
    const struct storage_result result = {.records = &record, .record_count = 1};

    while (!list_empty(&fake->open))
        fake_storage_answer_with(container_of(fake->open.next, struct fake_call, link), ERROR_NONE, &result);
}

static void read_answers(int fd, struct outcome *outcome)
{
    char bytes[65536];
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof bytes, 0)) > 0)
        fuzz_require(buffer_append(&outcome->bytes, bytes, (size_t)got));
    if (got < 0 && errno != EAGAIN)
        outcome->cut = true;
}

static void turn(int fd, struct outcome *outcome, int turns)
{
    for (int i = 0; i < turns; i++) {
        session_fixture_turn(&fixture);
        answer_storage();
        read_answers(fd, outcome);
    }
}

static void talk(const uint8_t *data, size_t size, size_t piece, bool half_close, struct outcome *outcome)
{
    int pair[2];

    *outcome = (struct outcome){0};
    buffer_init(&outcome->bytes, 0);
    fuzz_require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    api_server_take(api->server, pair[1]);
    for (size_t at = 0; at < size;) {
        size_t len = size - at < piece ? size - at : piece;
        ssize_t sent = send(pair[0], data + at, len, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            break;
        at += sent > 0 ? (size_t)sent : 0;
        /* All at once means that the end comes before anything was read. */
        if (at < size || !half_close)
            turn(pair[0], outcome, TURNS);
    }
    if (half_close)
        shutdown(pair[0], SHUT_WR);
    turn(pair[0], outcome, TURNS_AT_END);
    fuzz_require(api_server_memory(api->server) <= api->server->limits.memory);
    close(pair[0]);
    for (int i = 0; i < TURNS; i++) {
        session_fixture_turn(&fixture);
        answer_storage();
    }
    fuzz_require(api_server_connections(api->server) == 0);
    fuzz_require(api_server_memory(api->server) == 0);
    fuzz_require(api->call_count == 0);
}

/* ---- the answers ---- */

/* Reads one answer off `rest`; false when it isn't all there. */
static bool take_answer(struct slice *rest, int *status)
{
    const char *end = memmem(rest->data, rest->len, "\r\n\r\n", 4);
    char head[4096];

    if (!end)
        return false;
    size_t head_len = (size_t)(end + 4 - rest->data), body_len = 0;
    fuzz_require(head_len < sizeof head);
    memcpy(head, rest->data, head_len);
    head[head_len] = '\0';
    fuzz_require(sscanf(head, "HTTP/1.1 %d ", status) == 1);
    const char *length = strstr(head, "\r\nContent-Length: ");
    fuzz_require((length != NULL) == (*status != 100));
    if (length)
        body_len = strtoul(length + 18, NULL, 10);
    fuzz_require(*status < 400 || strstr(head, "\r\nContent-Type: application/problem+json\r\n") ||
                 strstr(head, "\r\nContent-Type: text/plain; charset=utf-8\r\n"));
    if (rest->len - head_len < body_len)
        return false;
    *rest = slice_from(rest->data + head_len + body_len, rest->len - head_len - body_len);
    return true;
}

static void read_statuses(struct outcome *outcome)
{
    struct slice rest = slice_from(outcome->bytes.data, outcome->bytes.len);
    int status;

    while (rest.len && outcome->count < ANSWERS_MAX && take_answer(&rest, &status))
        if (status != 100)
            outcome->statuses[outcome->count++] = status;
    fuzz_require(!rest.len || outcome->cut || outcome->count == ANSWERS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, pieces;

    if (size < 1 || size > 20000)
        return 0;
    open_once();
    bool half_close = data[0] & 1;
    size_t piece = 1 + (data[0] >> 1) % 31;
    if (size / piece > 2000)
        piece = size / 2000 + 1;
    talk(data + 1, size - 1, size, half_close, &whole);
    talk(data + 1, size - 1, piece, half_close, &pieces);
    /* A HEAD's answer has a length and no body: its end can't be found without knowing what was asked. */
    if (!memmem(data, size, "HEAD", 4)) {
        read_statuses(&whole);
        read_statuses(&pieces);
        if (!whole.cut && !pieces.cut) {
            fuzz_require(whole.count == pieces.count);
            fuzz_require(memcmp(whole.statuses, pieces.statuses, whole.count * sizeof *whole.statuses) == 0);
        }
    }
    buffer_close(&whole.bytes);
    buffer_close(&pieces.bytes);
    return 0;
}
