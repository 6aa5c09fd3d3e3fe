/* Logging never waits for its reader. Each test runs in a child of its own, whose standard error is something that nobody reads. */
#include "base/clock.h"
#include "base/log.h"
#include "base/stderr.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

enum { LINES = 2000, GONE_MS = 20000 };

static int outside = -1; /* the reader's end */
static unsigned calls;

/* Inside a child cmocka can't count failures. */
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                           \
            fflush(stdout);                                                                                  \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

static void write_lines(int count)
{
    char text[100];

    memset(text, 'x', sizeof text);
    for (int i = 0; i < count; i++)
        log_info("line", log_int("number", i), log_bytes("text", text, sizeof text));
}

static size_t read_some(char *text, size_t size, int timeout_ms)
{
    struct pollfd fd = {.fd = outside, .events = POLLIN};
    ssize_t got = poll(&fd, 1, timeout_ms) > 0 ? read(outside, text, size) : 0;

    return got > 0 ? (size_t)got : 0;
}

/* What comes at the reader's end until `end` has come and nothing follows; a string to be freed. What is held back is sent once
 * there is room: a terminal may hold half a line, and moves what was written only after a while. */
static char *read_until(const char *end)
{
    size_t len = 0, size = 1 << 20, got;
    uint64_t start = clock_monotonic_ms();
    char *text = malloc(size);

    text[0] = '\0';
    do {
        bool found = strstr(text, end) != NULL;
        got = read_some(text + len, size - len - 1, found ? 0 : 20);
        len += got;
        text[len] = '\0';
        if (!got && found)
            return text;
        if (!got)
            log_resume();
    } while (clock_monotonic_ms() - start < GONE_MS / 2);
    CHECK(strstr(text, end) != NULL);
    return text;
}

/* The numbers of whole lines in `text`; whatever is no line of ours fails. `last` receives the highest. */
static int count_lines(const char *text, int *last)
{
    int count = 0;

    *last = -1;
    for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
        CHECK(strchr(line, '\n') != NULL);
        CHECK(strncmp(line, "time=", 5) == 0);
        int number;
        const char *at = strstr(line, "event=line number=");
        if (!at || at > strchr(line, '\n'))
            continue;
        CHECK(sscanf(at, "event=line number=%d", &number) == 1);
        CHECK(number > *last);
        *last = number;
        count++;
    }
    return count;
}

/* What the lines about missing ones add up to. */
static uint64_t count_missing(const char *text)
{
    unsigned long long sum = 0, lines;

    while ((text = strstr(text, "event=\"log lines dropped\" lines="))) {
        text = strstr(text, "lines=");
        CHECK(sscanf(text, "lines=%llu", &lines) == 1);
        sum += lines;
    }
    return sum;
}

/* A reader that is slow, then there: nothing waits, lines are whole, and what is missing is told. */
static void fill_and_drain(void)
{
    char missing[64];
    int last, more;
    uint64_t before = clock_monotonic_ms();

    write_lines(LINES);
    CHECK(clock_monotonic_ms() - before < GONE_MS / 4);
    uint64_t lost = log_dropped();
    CHECK(lost > 0 && lost < LINES);
    snprintf(missing, sizeof missing, " total=%llu\n", (unsigned long long)lost);
    char *text = read_until(missing);
    CHECK(count_missing(text) == lost);
    CHECK((uint64_t)count_lines(text, &last) == LINES - lost);
    free(text);
    write_lines(3);
    text = read_until("number=2 ");
    CHECK(count_lines(text, &more) == 3 && more == 2);
    CHECK(strstr(text, "dropped") == NULL);
    CHECK(log_dropped() == lost);
    free(text);
}

/* The same, where a pipe or terminal can't be opened anew. */
static void fill_and_drain_polled(void)
{
    const struct rlimit none = {3, 3};

    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
    fill_and_drain();
    CHECK(stderr_fd() == STDERR_FILENO);
}

static void leave_the_shared_description_alone(void)
{
    fill_and_drain();
    CHECK(stderr_fd() != STDERR_FILENO);
    CHECK(!(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK));
    CHECK(fcntl(stderr_fd(), F_GETFD) & FD_CLOEXEC);
}

static void count_call(int fd, void *data)
{
    CHECK(fd == stderr_fd() && fd >= 0);
    CHECK(data == &calls);
    calls++;
}

/* Told once, until it was tried again. */
static void tell_once(void)
{
    log_set_on_blocked(count_call, &calls);
    write_lines(LINES);
    CHECK(calls == 1);
    log_resume();
    CHECK(calls == 2);
    struct pollfd fd = {.fd = stderr_fd(), .events = POLLOUT};
    CHECK(poll(&fd, 1, 0) == 0);
    char block[PIPE_BUF];
    while (read_some(block, sizeof block, 0))
        continue;
    CHECK(poll(&fd, 1, 0) == 1);
    log_resume();
    CHECK(calls == 2);
    free(read_until("log lines dropped"));
}

static void lose_the_reader(void)
{
    log_set_on_blocked(count_call, &calls);
    signal(SIGPIPE, SIG_IGN);
    write_lines(1);
    close(outside);
    /* Once the parent has let go of it, too. */
    struct pollfd gone = {.fd = STDERR_FILENO};
    CHECK(poll(&gone, 1, GONE_MS) == 1);
    write_lines(LINES);
    CHECK(log_dropped() == LINES);
    CHECK(calls == 0); /* there is nothing to wait for */
}

static void have_patience(void)
{
    write_lines(LINES);
    uint64_t before = clock_monotonic_ms(), dropped = log_dropped();
    log_set_patience(300);
    write_lines(10);
    uint64_t waited = clock_monotonic_ms() - before;
    CHECK(waited >= 200 && waited < GONE_MS / 4); /* all together, not each */
    CHECK(log_dropped() == dropped + 10);
    free(read_until("log lines dropped"));
    before = clock_monotonic_ms();
    log_set_patience(GONE_MS);
    write_lines(10);
    CHECK(clock_monotonic_ms() - before < GONE_MS / 4);
    CHECK(log_dropped() == dropped + 10);
}

static void write_to_a_file(void)
{
    int last;

    write_lines(LINES);
    CHECK(log_dropped() == 0 && stderr_fd() < 0);
    lseek(outside, 0, SEEK_SET);
    char *text = read_until("number=1999 ");
    CHECK(count_lines(text, &last) == LINES);
    free(text);
}

static void write_to_nothing(void)
{
    close(STDERR_FILENO);
    write_lines(LINES);
    CHECK(log_dropped() == LINES);
}

/* ---- the children ---- */

enum reader { A_PIPE, A_SOCKET, A_TERMINAL, A_FILE };

static int open_reader(enum reader reader, int ends[2])
{
    char path[] = "/tmp/test-log-XXXXXX";
    struct termios mode;

    switch (reader) {
    case A_PIPE:
        return pipe(ends);
    case A_SOCKET:
        return socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
    case A_TERMINAL:
        if (openpty(&ends[0], &ends[1], NULL, NULL, NULL) != 0)
            return -1;
        tcgetattr(ends[1], &mode);
        cfmakeraw(&mode);
        return tcsetattr(ends[1], TCSANOW, &mode);
    case A_FILE:
        ends[0] = ends[1] = mkstemp(path);
        return ends[0] < 0 ? -1 : unlink(path);
    }
    return -1;
}

static void in_child(enum reader reader, void (*run)(void))
{
    int ends[2], status;

    assert_int_equal(open_reader(reader, ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(GONE_MS / 1000);
        outside = ends[0];
        dup2(ends[1], STDERR_FILENO);
        if (ends[1] != ends[0])
            close(ends[1]);
        run();
        _exit(0);
    }
    close(ends[0]);
    if (ends[1] != ends[0])
        close(ends[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_readers_that_are_slow(void **state)
{
    (void)state;
    in_child(A_PIPE, fill_and_drain);
    in_child(A_SOCKET, fill_and_drain);
    in_child(A_TERMINAL, fill_and_drain);
}

static void test_what_can_not_be_opened_anew(void **state)
{
    (void)state;
    in_child(A_PIPE, fill_and_drain_polled);
    in_child(A_TERMINAL, fill_and_drain_polled);
}

static void test_others_keep_their_descriptors(void **state)
{
    (void)state;
    in_child(A_PIPE, leave_the_shared_description_alone);
    in_child(A_TERMINAL, leave_the_shared_description_alone);
}

static void test_being_blocked_is_told(void **state)
{
    (void)state;
    in_child(A_PIPE, tell_once);
}

static void test_a_reader_that_is_gone(void **state)
{
    (void)state;
    in_child(A_PIPE, lose_the_reader);
    in_child(A_SOCKET, lose_the_reader);
}

static void test_patience(void **state)
{
    (void)state;
    in_child(A_PIPE, have_patience);
    in_child(A_SOCKET, have_patience);
}

static void test_files_and_nothing(void **state)
{
    (void)state;
    in_child(A_FILE, write_to_a_file);
    in_child(A_PIPE, write_to_nothing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_readers_that_are_slow),
        cmocka_unit_test(test_what_can_not_be_opened_anew),
        cmocka_unit_test(test_others_keep_their_descriptors),
        cmocka_unit_test(test_being_blocked_is_told),
        cmocka_unit_test(test_a_reader_that_is_gone),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_files_and_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
