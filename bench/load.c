/* bench_load: one run of one scenario against servers that run already. Prints one JSON object. bench/run starts it. */
#include "bench/load.h"
#include "base/alloc.h"
#include "bench/scenario.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

static const struct {
    const char *name;
    json_t *(*run)(struct load *load);
} scenarios[] = {
    {"fanout", scenario_fanout},   {"unicast", scenario_unicast}, {"request", scenario_request},
    {"connect", scenario_connect}, {"idle", scenario_idle},       {"storm", scenario_storm},
};

static const char usage[] =
    "Usage: bench_load SCENARIO --ports P[,P...] [OPTION]...\n"
    "\n"
    "SCENARIO: fanout, unicast, request, connect, idle or storm. Connections are spread over the ports of "
    "127.0.0.1.\n"
    "\n"
    "  --dialect NAME[,NAME...]    plain, json, msgpack, nats, mqtt, socketio; of requesters also http "
    "(default plain)\n"
    "  --responder NAME[,NAME...]  what answers requests: json, msgpack, plain, nats or socketio (default json)\n"
    "  --api-ports P[,P...]        where http asks\n"
    "  --sessions N                subscribers, sessions, responders or connections (default 100)\n"
    "  --requesters N              (default 8; of http as many as --inflight)\n"
    "  --idle N                    connections beside them that do nothing (default 0)\n"
    "  --idle-topics N             spread those over topics instead of giving each a name\n"
    "  --inflight N                messages on their way, or connections being made (default 4)\n"
    "  --rate N                    messages a second, sent when they are due whatever comes back\n"
    "  --where any|same|other      whether sender and receiver share an instance (default any)\n"
    "  --payload BYTES             of each message, from 16 (default 100)\n"
    "  --duration S, --warmup S    (default 3 and 0.5)\n"
    "  --server NAME=PID           a process whose CPU time counts; several times\n";

static unsigned numbers_parse(const char *text, uint16_t *out)
{
    unsigned count = 0;
    for (char *end; *text && count < PORTS_MAX; text = *end ? end + 1 : end) {
        out[count++] = (uint16_t)strtoul(text, &end, 10);
    }
    return count;
}

static unsigned dialects_parse(const char *text, const struct dialect **out)
{
    unsigned count = 0;
    char *words = mem_strdup(text), *rest = NULL;
    for (char *word = strtok_r(words, ",", &rest); word && count < DIALECTS_MAX;
         word = strtok_r(NULL, ",", &rest)) {
        out[count] = dialect_find(word);
        if (!out[count++]) {
            fail("there is no dialect '%s'", word);
        }
    }
    mem_free(words);
    return count;
}

static void server_parse(struct options *options, char *text)
{
    char *pid = strchr(text, '=');
    if (!pid || options->server_count == SERVERS_MAX) {
        fail("--server takes NAME=PID, at most %d times", SERVERS_MAX);
    }
    *pid = '\0';
    options->servers[options->server_count].name = text;
    options->servers[options->server_count++].pid = atoi(pid + 1);
}

enum {
    OPTION_PORTS = 1,
    OPTION_API_PORTS,
    OPTION_DIALECT,
    OPTION_RESPONDER,
    OPTION_SERVER,
    OPTION_WHERE,
    OPTION_DURATION,
    OPTION_WARMUP,
    OPTION_HELP,
    OPTION_NUMBER
};

static bool option_set(struct options *options, int option, char *value)
{
    uint32_t *const numbers[] = {&options->sessions,    &options->requesters, &options->idle,
                                 &options->idle_topics, &options->inflight,   &options->rate,
                                 &options->payload};
    switch (option) {
    case OPTION_PORTS:
        options->port_count = numbers_parse(value, options->ports);
        return true;
    case OPTION_API_PORTS:
        options->api_port_count = numbers_parse(value, options->api_ports);
        return true;
    case OPTION_DIALECT:
        options->dialect_count = dialects_parse(value, options->dialects);
        return true;
    case OPTION_RESPONDER:
        options->responder_count = dialects_parse(value, options->responders);
        return true;
    case OPTION_SERVER:
        server_parse(options, value);
        return true;
    case OPTION_WHERE:
        options->where = value[0] == 's' ? TARGET_SAME : value[0] == 'o' ? TARGET_OTHER : TARGET_ANY;
        return true;
    case OPTION_DURATION:
        options->duration = atof(value);
        return true;
    case OPTION_WARMUP:
        options->warmup = atof(value);
        return true;
    case OPTION_HELP:
        fputs(usage, stdout);
        exit(0);
    default:
        if (option < OPTION_NUMBER || option >= OPTION_NUMBER + (int)(sizeof numbers / sizeof *numbers)) {
            return false;
        }
        *numbers[option - OPTION_NUMBER] = (uint32_t)strtoul(value, NULL, 10);
        return true;
    }
}

static bool options_parse(struct options *options, int argc, char **argv)
{
    static const struct option known[] = {
        {"ports", required_argument, NULL, OPTION_PORTS},
        {"api-ports", required_argument, NULL, OPTION_API_PORTS},
        {"dialect", required_argument, NULL, OPTION_DIALECT},
        {"responder", required_argument, NULL, OPTION_RESPONDER},
        {"server", required_argument, NULL, OPTION_SERVER},
        {"where", required_argument, NULL, OPTION_WHERE},
        {"duration", required_argument, NULL, OPTION_DURATION},
        {"warmup", required_argument, NULL, OPTION_WARMUP},
        {"sessions", required_argument, NULL, OPTION_NUMBER},
        {"requesters", required_argument, NULL, OPTION_NUMBER + 1},
        {"idle", required_argument, NULL, OPTION_NUMBER + 2},
        {"idle-topics", required_argument, NULL, OPTION_NUMBER + 3},
        {"inflight", required_argument, NULL, OPTION_NUMBER + 4},
        {"rate", required_argument, NULL, OPTION_NUMBER + 5},
        {"payload", required_argument, NULL, OPTION_NUMBER + 6},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (!option_set(options, option, optarg)) {
            return false;
        }
    }
    if (argc - optind != 1 || options->port_count == 0) {
        return false;
    }
    options->scenario = argv[optind];
    return true;
}

static void options_check(const struct options *options)
{
    if (options->payload < PAYLOAD_MIN || options->payload > PAYLOAD_MAX) {
        fail("--payload takes %d to %d bytes", PAYLOAD_MIN, PAYLOAD_MAX);
    }
    if (options->inflight < 1 || options->inflight > SLOTS_MAX || options->sessions < 1 ||
        options->requesters < 1) {
        fail("--inflight takes 1 to %d, and there must be sessions", SLOTS_MAX);
    }
    for (unsigned i = 0; i < options->dialect_count; i++) {
        if (options->dialects[i]->http && options->api_port_count == 0) {
            fail("http needs --api-ports");
        }
    }
}

static void load_init(struct load *load)
{
    const struct options *options = &load->options;
    uint32_t most = options->sessions + options->idle + options->requesters + options->inflight + 1;
    load->connections = mem_calloc(most, sizeof *load->connections);
    load->filler = mem_alloc(options->payload);
    load->scratch = mem_alloc(FRAME_ROOM + COMMAND_ROOM + options->payload);
    load->received = mem_alloc(READ_SIZE);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!load->connections || !load->filler || !load->scratch || !load->received || load->epoll < 0) {
        fail("out of memory");
    }
    for (uint32_t i = 0; i < options->payload; i++) {
        load->filler[i] = (char)('a' + i % 26);
    }
    load->random = 0x9e3779b97f4a7c15;
    load->epoch = load_now(load);
    prctl(PR_SET_TIMERSLACK, 1); /* else every wait is up to 50 µs late */
}

static json_t *violations_json(const struct violations *violations)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "gaps", (json_int_t)violations->gaps, "late",
                     (json_int_t)violations->late, "missing", (json_int_t)violations->missing, "wrong",
                     (json_int_t)violations->wrong, "failed", (json_int_t)violations->failed, "lost",
                     (json_int_t)violations->lost, "stalled", violations->stalled);
}

static bool is_valid(const struct violations *violations)
{
    return violations->gaps + violations->late + violations->missing + violations->wrong +
                   violations->failed + violations->lost ==
               0 &&
           !violations->stalled;
}

static void report(struct load *load, json_t *result)
{
    json_object_set_new(result, "scenario", json_string(load->options.scenario));
    json_object_set_new(result, "valid", json_boolean(is_valid(&load->violations)));
    json_object_set_new(result, "violations", violations_json(&load->violations));
    json_object_set_new(result, "latency_us", histogram_json(&load->latency));
    json_object_set_new(result, "lateness_us", histogram_json(&load->lateness));
    json_object_set_new(result, "connecting_us", histogram_json(&load->connecting));
    json_object_set_new(result, "others", json_integer((json_int_t)load->others));
    json_dumpf(result, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(result);
}

int main(int argc, char **argv)
{
    static struct load load;
    load.options = (struct options){.sessions = 100,
                                    .requesters = 8,
                                    .inflight = 4,
                                    .payload = 100,
                                    .duration = 3,
                                    .warmup = 0.5,
                                    .dialects = {&dialect_plain},
                                    .dialect_count = 1,
                                    .responders = {&dialect_json},
                                    .responder_count = 1};
    if (!options_parse(&load.options, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    options_check(&load.options);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, load.options.scenario) == 0) {
            load_init(&load);
            json_t *result = scenarios[i].run(&load);
            connections_close(&load);
            report(&load, result);
            return 0;
        }
    }
    fail("there is no scenario '%s'", load.options.scenario);
}
