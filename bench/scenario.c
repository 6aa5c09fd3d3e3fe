#include "bench/scenario.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

enum { SENDER_DIGITS = 3, SEQUENCE_DIGITS = 5, TIME_DIGITS = 8, CONNECT_PATIENCE = 120, STALL = 5 };

/* ---- stamps */

static char *digits_write(char *out, uint64_t value, unsigned count)
{
    for (unsigned i = count; i-- > 0;) {
        out[i] = digits[value & 63];
        value >>= 6;
    }
    return out + count;
}

static bool digits_read(const char *text, unsigned count, uint64_t *value)
{
    static signed char values[256];
    if (values['B'] == 0) {
        memset(values, -1, sizeof values);
        for (int i = 0; i < 64; i++) {
            values[(unsigned char)digits[i]] = (signed char)i;
        }
    }
    *value = 0;
    for (unsigned i = 0; i < count; i++) {
        int digit = values[(unsigned char)text[i]];
        if (digit < 0) {
            return false;
        }
        *value = *value << 6 | (unsigned)digit;
    }
    return true;
}

struct slice stamp_payload(struct load *load, struct stamp stamp)
{
    char *at = digits_write(load->filler, stamp.sender, SENDER_DIGITS);
    at = digits_write(at, stamp.sequence, SEQUENCE_DIGITS);
    digits_write(at, stamp.time, TIME_DIGITS);
    return slice_from(load->filler, load->options.payload);
}

bool stamp_read(struct load *load, struct slice payload, struct stamp *stamp)
{
    uint64_t sender, sequence;
    if (payload.len < PAYLOAD_MIN || !digits_read(payload.data, SENDER_DIGITS, &sender) ||
        !digits_read(payload.data + SENDER_DIGITS, SEQUENCE_DIGITS, &sequence) ||
        !digits_read(payload.data + SENDER_DIGITS + SEQUENCE_DIGITS, TIME_DIGITS, &stamp->time)) {
        load->others++;
        return false;
    }
    if (payload.len != load->options.payload ||
        memcmp(payload.data + PAYLOAD_MIN, load->filler + PAYLOAD_MIN, payload.len - PAYLOAD_MIN) != 0) {
        load->violations.wrong++;
        return false;
    }
    stamp->sender = (uint32_t)sender;
    stamp->sequence = (uint32_t)sequence;
    return true;
}

bool sequence_check(struct load *load, uint32_t *next, uint32_t sequence)
{
    if (sequence < *next) {
        load->violations.late++;
        return false;
    }
    load->violations.gaps += sequence - *next;
    *next = sequence + 1;
    return true;
}

/* ---- connections */

struct connection *connections_add(struct load *load, enum role role, uint32_t count,
                                   const struct dialect *const *dialects, unsigned dialect_count)
{
    struct connection *first = load->connections + load->count;
    for (uint32_t i = 0; i < count; i++) {
        unsigned ports = load->options.port_count;
        first[i] = (struct connection){.dialect = dialects[i / ports % dialect_count],
                                       .role = role,
                                       .fd = -1,
                                       .number = i,
                                       .port = i % ports};
    }
    load->count += count;
    return first;
}

struct connection *connections_add_idle(struct load *load)
{
    const struct options *options = &load->options;
    struct connection *first =
        connections_add(load, ROLE_IDLE, options->idle, options->dialects, options->dialect_count);
    for (uint32_t i = 0; i < options->idle; i++) {
        first[i].topic = options->idle_topics > 0 ? i % options->idle_topics : UINT32_MAX;
    }
    return first;
}

void connections_open(struct load *load, struct connection *first, uint32_t count, uint32_t at_once)
{
    uint32_t goal = load->ready + count, next = 0;
    uint64_t deadline = load_now(load) + seconds_ns(CONNECT_PATIENCE);
    while (load->ready < goal) {
        while (load->pending < at_once && next < count) {
            load->pending++;
            first[next].started = load_now(load);
            connection_open(load, &first[next++]);
        }
        if (load->violations.lost > 0) {
            fail("a connection failed while %u of %u were open", load->ready, goal);
        }
        load_turn(load, load_now(load) + seconds_ns(1));
        if (load_now(load) > deadline) {
            fail("only %u of %u connections were ready after %d s", load->ready, goal, CONNECT_PATIENCE);
        }
    }
}

void connections_close(struct load *load)
{
    for (uint32_t i = 0; i < load->count; i++) {
        connection_close(load, &load->connections[i]);
    }
}

void hook_ready(struct load *load, struct connection *conn)
{
    load->pending--;
    histogram_add(&load->connecting, load_now(load) - conn->started);
}

void hook_lost(struct load *load, struct connection *conn)
{
    (void)conn;
    load->violations.lost++;
}

void hook_message(struct load *load, struct connection *conn, struct slice payload)
{
    (void)conn;
    (void)payload;
    load->others++;
}

void hook_reply(struct load *load, struct connection *conn, uint32_t id, struct slice payload)
{
    (void)id;
    hook_message(load, conn, payload);
}

/* ---- time */

/* The seconds of processor that a process has used, in user mode and in the kernel; what has ended counts as 0. */
static double process_cpu(int pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = file < 0 ? 0 : read(file, text, sizeof text - 1);
    if (file >= 0) {
        close(file);
    }
    text[len > 0 ? len : 0] = '\0';
    const char *at = strrchr(text, ')'); /* the name may hold anything */
    unsigned long user, kernel;
    if (!at || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2) {
        return 0;
    }
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static double own_cpu(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

void window_open(struct load *load, struct window *window, uint64_t operations)
{
    for (unsigned i = 0; i < load->options.server_count; i++) {
        window->cpu[i] = -process_cpu(load->options.servers[i].pid);
    }
    window->generator = -own_cpu();
    window->operations = operations;
    window->start = load_now(load);
}

void window_close(struct load *load, struct window *window, uint64_t operations)
{
    window->end = load_now(load);
    window->operations = operations - window->operations;
    for (unsigned i = 0; i < load->options.server_count; i++) {
        window->cpu[i] += process_cpu(load->options.servers[i].pid);
    }
    window->generator += own_cpu();
}

static double servers_cpu(const struct load *load)
{
    double sum = 0;
    for (unsigned i = 0; i < load->options.server_count; i++) {
        sum += process_cpu(load->options.servers[i].pid);
    }
    return sum;
}

void servers_settle(struct load *load)
{
    uint64_t deadline = load_now(load) + seconds_ns(10);
    double before = servers_cpu(load);
    while (load_now(load) < deadline) {
        for (uint64_t end = load_now(load) + seconds_ns(0.4); load_now(load) < end;) {
            load_turn(load, end);
        }
        double after = servers_cpu(load);
        if (after - before < 0.025) {
            return;
        }
        before = after;
    }
}

void drain(struct load *load, const uint64_t *count, uint64_t goal)
{
    uint64_t seen = *count, deadline = load_now(load) + seconds_ns(STALL);
    while (*count < goal && load_now(load) < deadline) {
        load_turn(load, deadline);
        if (*count != seen) {
            seen = *count;
            deadline = load_now(load) + seconds_ns(STALL);
        }
    }
    load->violations.stalled |= *count < goal;
}

json_t *window_json(const struct load *load, const struct window *window)
{
    double seconds = (double)(window->end - window->start) / 1e9, all = 0;
    double operations = window->operations > 0 ? (double)window->operations : 1;
    json_t *cpu = json_object();
    for (unsigned i = 0; i < load->options.server_count; i++) {
        const char *name = load->options.servers[i].name;
        double used = window->cpu[i] > 0 ? window->cpu[i] : 0; /* ended meanwhile: unknown */
        json_object_set_new(cpu, name, json_real(json_real_value(json_object_get(cpu, name)) + used));
        all += used;
    }
    return json_pack("{s:f, s:I, s:f, s:o, s:f, s:f}", "seconds", seconds, "operations",
                     (json_int_t)window->operations, "rate", (double)window->operations / seconds, "cpu", cpu,
                     "cpu_us", all / operations * 1e6, "generator_share", window->generator / seconds);
}
