/* bench: many clients in one process, and what the broker makes of them.
 *
 * Each measurement has steps that end when a count is reached; nothing waits for time to pass. Latencies are measured in
 * this process, from the call to its callback, so they hold both ways and this program's own share. */
#include "base/alloc.h"
#include "base/clock.h"
#include "client/client_internal.h"
#include "client/swb/swb.h"

#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CONNECTING_MAX = 200, BAR_WIDTH = 40, BAR_MS = 100, STALL_MS = 30000, RESULTS_MAX = 4 };

struct bench;

struct peer {
    struct bench *bench;
    struct swb_client *client;
    char *session;  /* owned; once it is online */
    uint64_t began; /* monotonic us: connecting */
};

/* One row of the table. */
struct row {
    const char *name;
    uint64_t count, errors;
    double seconds;
    uint64_t p50, p99, max; /* microseconds */
};

struct bench {
    const struct args *args;
    struct event_base *base;
    struct ws_shared shared;
    struct peer *peers;
    uint64_t connections, messages, size, window;
    uint64_t next_peer, online;        /* connecting */
    const char *what;                  /* the measurement under way; NULL: none */
    uint64_t sent, done, goal, errors; /* of the measurement */
    uint64_t under_way;
    uint64_t done_before, idle; /* turns of the bar without progress */
    uint64_t began, ended;      /* monotonic us */
    uint32_t *latencies;        /* us; one for each done */
    uint64_t latency_count;
    char *payload;
    struct event *bar, *interrupt;
    bool tty, failed, stopped;
    struct row rows[RESULTS_MAX];
    size_t row_count;
};

static void fail(struct bench *bench, const char *what, const char *why)
{
    if (!bench->failed)
        complain("%s%s: %s", bench->tty ? "\r" : "", what, why);
    bench->failed = true;
    event_base_loopbreak(bench->base);
}

/* ---- progress and results ------------------------------------------------------------------------------ */

static void draw_bar(struct bench *bench)
{
    uint64_t goal = bench->goal ? bench->goal : 1;
    unsigned filled = (unsigned)(bench->done * BAR_WIDTH / goal);

    fprintf(stderr, "\r%-12s [", bench->what ? bench->what : "");
    for (unsigned i = 0; i < BAR_WIDTH; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %3u %%", (unsigned)(bench->done * 100 / goal));
}

static void on_bar(evutil_socket_t fd, short what, void *data)
{
    struct bench *bench = data;

    (void)fd;
    (void)what;
    if (bench->tty)
        draw_bar(bench);
    bench->idle = bench->done == bench->done_before ? bench->idle + 1 : 0;
    bench->done_before = bench->done;
    if (bench->idle * BAR_MS >= STALL_MS)
        fail(bench, bench->what ? bench->what : "bench", "nothing happened for 30 seconds");
}

static void note(struct bench *bench, uint64_t since)
{
    uint64_t now = clock_monotonic_us();

    if (bench->latency_count < bench->goal)
        bench->latencies[bench->latency_count++] = (uint32_t)(now - since);
    bench->done++;
    if (bench->done >= bench->goal) {
        bench->ended = now;
        event_base_loopbreak(bench->base);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t percentile(const struct bench *bench, unsigned percent)
{
    if (!bench->latency_count)
        return 0;
    return bench->latencies[(bench->latency_count - 1) * percent / 100];
}

/* Runs the loop until `goal` is reached; false when it failed or was interrupted. */
static bool measure(struct bench *bench, const char *name, uint64_t goal, void (*begin)(struct bench *bench))
{
    uint32_t *latencies = mem_realloc(bench->latencies, goal * sizeof *latencies);

    if (!latencies) {
        fail(bench, name, "memory is short");
        return false;
    }
    bench->latencies = latencies;
    bench->what = name;
    bench->goal = goal;
    bench->sent = bench->done = bench->errors = bench->under_way = bench->latency_count = 0;
    bench->began = clock_monotonic_us();
    begin(bench);
    if (!bench->failed)
        event_base_dispatch(bench->base);
    if (bench->tty)
        fprintf(stderr, "\r%*s\r", BAR_WIDTH + 22, "");
    if (bench->failed || bench->stopped)
        return false;
    qsort(bench->latencies, bench->latency_count, sizeof *bench->latencies, compare);
    bench->rows[bench->row_count++] = (struct row){.name = name,
                                                   .count = bench->done,
                                                   .errors = bench->errors,
                                                   .seconds = (double)(bench->ended - bench->began) / 1e6,
                                                   .p50 = percentile(bench, 50),
                                                   .p99 = percentile(bench, 99),
                                                   .max = percentile(bench, 100)};
    bench->what = NULL;
    return true;
}

static void print_rows(const struct bench *bench)
{
    bool json = args_has(bench->args, OPT_JSON);

    if (!json)
        printf("%-12s %10s %9s %12s %8s %10s %10s %10s\n", "", "count", "seconds", "per second", "errors",
               "p50 ms", "p99 ms", "max ms");
    for (size_t i = 0; i < bench->row_count; i++) {
        const struct row *row = &bench->rows[i];
        double rate = row->seconds > 0 ? (double)row->count / row->seconds : 0;
        printf(json ? "{\"name\":\"%s\",\"count\":%" PRIu64
                      ",\"seconds\":%.3f,\"rate\":%.0f,\"errors\":%" PRIu64
                      ",\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}\n"
                    : "%-12s %10" PRIu64 " %9.3f %12.0f %8" PRIu64 " %10.2f %10.2f %10.2f\n",
               row->name, row->count, row->seconds, rate, row->errors, (double)row->p50 / 1e3,
               (double)row->p99 / 1e3, (double)row->max / 1e3);
    }
}

/* ---- connecting ---------------------------------------------------------------------------------------- */

static void connect_more(struct bench *bench);
static void on_message(struct swb_client *client, const struct swb_message *message, void *data);

static void on_state(struct swb_client *client, const struct swb_status *status, void *data)
{
    struct peer *peer = data;
    struct bench *bench = peer->bench;

    (void)client;
    if (status->state == SWB_DOWN) {
        fail(bench, "a connection ended", *status->reason ? status->reason : "closed");
    } else if (status->state == SWB_ONLINE) {
        peer->session = mem_strdup(status->hello->session);
        bench->online++;
        bench->under_way--;
        note(bench, peer->began);
        connect_more(bench);
    }
}

static bool open_peer(struct bench *bench, struct peer *peer)
{
    struct swb_options options = SWB_OPTIONS;
    enum { PATIENCE_MS = 60000 };

    options.token = settings_token(bench->args);
    options.agent = "swb-bench/" SWITCHBOARD_VERSION;
    options.no_reconnect = true;
    options.connect_timeout = options.call_timeout = PATIENCE_MS;
    options.on_state = on_state;
    options.on_message = on_message;
    options.data = peer;
    peer->bench = bench;
    peer->began = clock_monotonic_us();
    peer->client = client_create_shared(&bench->shared, &options);
    if (!peer->client || swb_client_connect(peer->client, settings_url(bench->args)) != SWB_OK) {
        fail(bench, settings_url(bench->args),
             peer->client ? "is no URL to connect to" : "memory or file descriptors are short");
        return false;
    }
    return true;
}

static void connect_more(struct bench *bench)
{
    while (!bench->failed && bench->next_peer < bench->connections && bench->under_way < CONNECTING_MAX) {
        bench->under_way++;
        if (!open_peer(bench, &bench->peers[bench->next_peer++]))
            return;
    }
}

/* ---- fanout: the first connection publishes, all of them receive --------------------------------------- */

static char topic[64]; /* of this run alone, so that two do not disturb each other */

/* The time of sending stands at the payload's beginning. */
static struct swb_payload stamp(struct bench *bench)
{
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%020" PRIu64, clock_monotonic_us());

    memcpy(bench->payload, digits, (size_t)len);
    return (struct swb_payload){SWB_TEXT, bench->payload, bench->size};
}

static void on_error(struct bench *bench, const struct swb_result *result)
{
    if (!bench->errors++)
        complain("%s%s: %s", bench->tty ? "\r" : "", bench->what, result->text);
}

static void on_subscribed(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct peer *peer = data;

    (void)client;
    if (result->error)
        fail(peer->bench, "subscribing", result->text);
    else
        note(peer->bench, peer->bench->began);
}

static void begin_subscribing(struct bench *bench)
{
    const struct swb_subscribe_options options = {.no_recovery = true};

    for (uint64_t i = 0; i < bench->connections; i++)
        if (swb_begin_subscribe(bench->peers[i].client, topic, &options, on_subscribed, &bench->peers[i]) !=
            SWB_OK)
            fail(bench, "subscribing", "the call was not taken");
}

static void publish_more(struct bench *bench);

static void on_published(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct bench *bench = data;

    (void)client;
    bench->under_way--;
    if (result->error) {
        on_error(bench, result);
        fail(bench, "publishing", result->text);
        return;
    }
    publish_more(bench);
}

static void publish_more(struct bench *bench)
{
    /* Few at a time: each is for all connections. */
    uint64_t total = bench->goal / bench->connections;
    uint64_t window = bench->window / 10 + 1;

    while (bench->sent < total && bench->under_way < window) {
        if (swb_begin_publish(bench->peers[0].client, topic, stamp(bench), NULL, on_published, bench) !=
            SWB_OK) {
            fail(bench, "publishing", "the call was not taken");
            return;
        }
        bench->sent++;
        bench->under_way++;
    }
}

static void send_more(struct bench *bench);

static void on_message(struct swb_client *client, const struct swb_message *message, void *data)
{
    struct peer *peer = data;
    struct bench *bench = peer->bench;

    (void)client;
    if (!bench->what || message->payload.len != bench->size)
        return;
    note(bench, strtoull(message->payload.data, NULL, 10));
    if (strcmp(bench->what, "unicast") == 0) {
        bench->under_way--;
        send_more(bench);
    }
}

/* ---- unicast: each connection to the next one's session ------------------------------------------------ */

static void send_more(struct bench *bench)
{
    char address[300];

    while (bench->sent < bench->goal && bench->under_way < bench->window) {
        struct peer *from = &bench->peers[bench->sent % bench->connections];
        struct peer *to = &bench->peers[(bench->sent + 1) % bench->connections];
        snprintf(address, sizeof address, "session:%s", to->session);
        if (swb_begin_send(from->client, address, stamp(bench), NULL, NULL, NULL) != SWB_OK) {
            fail(bench, "sending", "the call was not taken");
            return;
        }
        bench->sent++;
        bench->under_way++;
    }
}

/* ---- requests: each connection asks the next one ------------------------------------------------------- */

static void ask_more(struct bench *bench);

static void on_request(struct swb_client *client, struct swb_request *request, void *data)
{
    (void)client;
    (void)data;
    swb_request_reply(request, swb_request_message(request)->payload);
}

static void on_reply(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct bench *bench = data;

    (void)client;
    bench->under_way--;
    if (result->error)
        on_error(bench, result);
    note(bench, result->error ? clock_monotonic_us() : strtoull(result->reply.payload.data, NULL, 10));
    ask_more(bench);
}

static void ask_more(struct bench *bench)
{
    enum { PATIENCE_MS = 30000 };
    char address[300];

    while (!bench->failed && bench->sent < bench->goal && bench->under_way < bench->window) {
        struct peer *from = &bench->peers[bench->sent % bench->connections];
        struct peer *to = &bench->peers[(bench->sent + 1) % bench->connections];
        snprintf(address, sizeof address, "session:%s", to->session);
        if (swb_begin_request(from->client, address, stamp(bench), PATIENCE_MS, on_reply, bench) != SWB_OK) {
            fail(bench, "asking", "the call was not taken");
            return;
        }
        bench->sent++;
        bench->under_way++;
    }
}

static void begin_asking(struct bench *bench)
{
    for (uint64_t i = 0; i < bench->connections; i++)
        swb_client_serve(bench->peers[i].client, on_request, NULL);
    ask_more(bench);
}

/* ---- the command --------------------------------------------------------------------------------------- */

static void on_interrupt(evutil_socket_t number, short what, void *data)
{
    struct bench *bench = data;

    (void)number;
    (void)what;
    bench->stopped = true;
    event_base_loopbreak(bench->base);
}

static bool wanted(const struct bench *bench, const char *name)
{
    return !bench->args->word_count || strcmp(bench->args->words[0], name) == 0;
}

static void run(struct bench *bench)
{
    /* A fan-out of M messages to N connections is N x M deliveries: M is what is asked for in deliveries. */
    uint64_t rounds = bench->messages / bench->connections + 1;

    if (!measure(bench, "connections", bench->connections, connect_more))
        return;
    if (!wanted(bench, "connections"))
        bench->row_count = 0;
    if (wanted(bench, "fanout")) {
        if (!measure(bench, "subscribing", bench->connections, begin_subscribing))
            return;
        bench->row_count--;
        measure(bench, "fanout", rounds * bench->connections, publish_more);
    }
    if (!bench->failed && !bench->stopped && wanted(bench, "unicast"))
        measure(bench, "unicast", bench->messages, send_more);
    if (!bench->failed && !bench->stopped && wanted(bench, "requests"))
        measure(bench, "requests", bench->messages, begin_asking);
}

static bool bench_open(struct bench *bench)
{
    static const struct timeval interval = {.tv_usec = BAR_MS * 1000};
    struct rlimit files;

    bench->base = event_base_new();
    bench->peers = mem_calloc(bench->connections, sizeof *bench->peers);
    bench->payload = mem_alloc(bench->size + 1);
    if (!bench->base || !bench->peers || !bench->payload)
        return false;
    memset(bench->payload, 'x', bench->size);
    bench->payload[bench->size] = '\0';
    snprintf(topic, sizeof topic, "swb-bench-%ld-%" PRIu64, (long)getpid(), clock_wall_ms());
    ws_shared_init(&bench->shared, bench->base);
    bench->shared.ca_file = bench->args->values[OPT_CA_FILE];
    bench->tty = isatty(STDERR_FILENO);
    bench->interrupt = evsignal_new(bench->base, SIGINT, on_interrupt, bench);
    bench->bar = event_new(bench->base, -1, EV_PERSIST, on_bar, bench);
    if (!bench->interrupt || !bench->bar)
        return false;
    event_add(bench->interrupt, NULL);
    event_add(bench->bar, &interval);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    return true;
}

static void bench_close(struct bench *bench)
{
    for (uint64_t i = 0; bench->peers && i < bench->connections; i++) {
        swb_client_destroy(bench->peers[i].client);
        mem_free(bench->peers[i].session);
    }
    if (bench->interrupt)
        event_free(bench->interrupt);
    if (bench->bar)
        event_free(bench->bar);
    if (bench->base) {
        ws_shared_close(&bench->shared);
        event_base_free(bench->base);
    }
    mem_free(bench->peers);
    mem_free(bench->latencies);
    mem_free(bench->payload);
}

static bool read_options(struct bench *bench, const struct args *args)
{
    enum { STAMP = 20, SIZE_MAX_BYTES = 1 << 20 };
    static const char *const names[] = {"connections", "fanout", "unicast", "requests"};
    bool known = !args->word_count;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        known = known || strcmp(args->words[0], names[i]) == 0;
    if (!known) {
        complain("bench knows connections, fanout, unicast and requests, not '%s'", args->words[0]);
        return false;
    }
    if (!args_number(args, OPT_CONNECTIONS, 1000, &bench->connections) ||
        !args_number(args, OPT_MESSAGES, 10000, &bench->messages) ||
        !args_number(args, OPT_SIZE, 128, &bench->size) ||
        !args_number(args, OPT_WINDOW, 100, &bench->window))
        return false;
    if (bench->connections < 1 || bench->messages < 1 || bench->window < 1 || bench->size < STAMP ||
        bench->size > SIZE_MAX_BYTES) {
        complain("--connections, --messages and --window begin at 1; --size goes from %d to %d", STAMP,
                 SIZE_MAX_BYTES);
        return false;
    }
    return true;
}

int command_bench(const struct args *args)
{
    struct bench bench = {.args = args};
    int status = EXIT_ERROR;

    if (!settings_check(args) || !read_options(&bench, args))
        return EXIT_USAGE;
    if (bench_open(&bench)) {
        run(&bench);
        print_rows(&bench);
        status = !bench.failed && !bench.stopped ? EXIT_OK : bench.online ? EXIT_ERROR : EXIT_UNAVAILABLE;
    } else {
        complain("memory is short");
    }
    bench_close(&bench);
    return status;
}
