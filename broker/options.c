#include "broker/options.h"

#include "broker/network.h"

#include <ctype.h>
#include <string.h>

#define SECONDS(n) ((uint64_t)(n)*1000)
#define HOURS(n)   (SECONDS(n) * 3600)
#define KIB        ((uint64_t)1024)
#define MIB        (KIB * 1024)
#define GIB        (MIB * 1024)
#define FIELD(f)   offsetof(struct config, f)

static const char *const storage_names[] = {"auto", "memory", "redis", NULL};
static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_names[] = {"logfmt", "json", NULL};

static bool only(const char *value, size_t min, size_t max, const char *punctuation)
{
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)value[i]) && strchr(punctuation, value[i]) == NULL)
            return false;
    }
    return len >= min && len <= max;
}

static bool is_key_prefix(const char *value)
{
    return only(value, 1, 64, ":._-");
}

static bool is_instance(const char *value)
{
    return only(value, 0, 63, "._-");
}

bool option_is_token(const char *value)
{
    return only(value, 8, 256, "-._~+/=");
}

static bool is_host_list(const char *value)
{
    return only(value, 0, 1024, ".-_, ");
}

static bool is_token_or_none(const char *value)
{
    return value[0] == '\0' || option_is_token(value);
}

static bool is_network(const char *value)
{
    struct network network;
    return network_parse(value, &network);
}

const char *const option_group_titles[GROUP_COUNT] = {
    [GROUP_LISTEN] = "Listening", [GROUP_STORAGE] = "Storage", [GROUP_LIMITS] = "Limits",
    [GROUP_TIMES] = "Times",      [GROUP_LOG] = "Log",
};

/* clang-format off: one row, one option */
const struct option_spec option_specs[] = {
    {.key = "listen",
     .type = OPTION_ADDRESS,
     .group = GROUP_LISTEN,
     .offset = FIELD(listen),
     .fallback = "127.0.0.1:8000",
     .meta = "ADDR:PORT",
     .letter = 'l',
     .help = "Where WebSocket clients connect. Anything but loopback needs authentication or insecure."},
    {.key = "api",
     .type = OPTION_ADDRESS,
     .group = GROUP_LISTEN,
     .offset = FIELD(api),
     .fallback = "127.0.0.1:8001",
     .off_allowed = true,
     .meta = "ADDR:PORT|off",
     .help =
         "Where health, metrics and the HTTP API are served. Anything but loopback needs authentication or "
         "insecure."},
    {.key = "api_token",
     .type = OPTION_STRING,
     .group = GROUP_LISTEN,
     .offset = FIELD(api_token),
     .fallback = "",
     .check = is_token_or_none,
     .form = "8 to 256 of A-Z a-z 0-9 - . _ ~ + / =",
     .secret = true,
     .meta = "TOKEN",
     .reload = true,
     .help = "The bearer token that the API asks for, except on /healthz and /readyz. With one, the API may listen "
             "beyond loopback. Others on this machine can read the command line: use the environment or a file."},
    {.key = "api_token_file",
     .type = OPTION_STRING,
     .group = GROUP_LISTEN,
     .offset = FIELD(api_token_file),
     .fallback = "",
     .meta = "FILE",
     .reload = true,
     .help = "A file that holds the token instead of api_token."},
    {.key = "api_hosts",
     .type = OPTION_STRING,
     .group = GROUP_LISTEN,
     .offset = FIELD(api_hosts),
     .fallback = "",
     .check = is_host_list,
     .form = "host names without ports, separated by commas",
     .meta = "NAME,...",
     .reload = true,
     .help = "Names under which the API is served (the request's Host), besides localhost and every address; health is "
             "told under any. Empty: no other name without a token, against web pages that bind their name to this "
             "address, and any name with one."},
    {.key = "insecure",
     .type = OPTION_BOOL,
     .group = GROUP_LISTEN,
     .offset = FIELD(insecure),
     .fallback = "no",
     .meta = "yes|no",
     .help =
         "Allow listening beyond loopback without authentication: whoever reaches the port can be anybody."},
    {.key = "tls_cert",
     .type = OPTION_STRING,
     .group = GROUP_LISTEN,
     .offset = FIELD(tls_cert),
     .fallback = "",
     .meta = "FILE",
     .help = "Certificate chain (PEM). With tls_key, the WebSocket port speaks TLS."},
    {.key = "tls_key",
     .type = OPTION_STRING,
     .group = GROUP_LISTEN,
     .offset = FIELD(tls_key),
     .fallback = "",
     .meta = "FILE",
     .help = "Private key (PEM) of tls_cert."},
    {.key = "prefixes",
     .type = OPTION_LIST,
     .group = GROUP_LISTEN,
     .offset = FIELD(prefixes),
     .fallback = "",
     .check = option_is_path_prefix,
     .form = "paths like /chat",
     .meta = "/PATH,...",
     .reload = true,
     .help = "Path prefixes under which every route is served too. May be given several times."},

    {.key = "storage",
     .type = OPTION_ENUM,
     .group = GROUP_STORAGE,
     .offset = FIELD(storage),
     .fallback = "auto",
     .names = storage_names,
     .meta = "KIND",
     .help = "Where sessions are registered and messages travel: memory for a single broker, redis for many, "
             "auto for redis exactly when redis is set."},
    {.key = "redis",
     .type = OPTION_REDIS,
     .group = GROUP_STORAGE,
     .offset = FIELD(redis),
     .fallback = "",
     .meta = "URL",
     .letter = 'r',
     .help = "The Redis server: redis://[USER:PASSWORD@]HOST[:PORT][/DB] or unix://PATH[?db=DB]."},
    {.key = "prefix",
     .type = OPTION_STRING,
     .group = GROUP_STORAGE,
     .offset = FIELD(prefix),
     .fallback = "sb:",
     .check = is_key_prefix,
     .form = "1 to 64 of A-Z a-z 0-9 : . _ -",
     .meta = "TEXT",
     .help = "What all keys and channels in Redis begin with. Brokers that work together share it."},
    {.key = "instance",
     .type = OPTION_STRING,
     .group = GROUP_STORAGE,
     .offset = FIELD(instance),
     .fallback = "",
     .check = is_instance,
     .form = "up to 63 of A-Z a-z 0-9 . _ -",
     .meta = "ID",
     .help =
         "This broker's name, unique among those that share a Redis. Empty: made from host name and chance."},
    {.key = "heartbeat",
     .type = OPTION_DURATION,
     .group = GROUP_STORAGE,
     .offset = FIELD(heartbeat),
     .fallback = "1s",
     .min = 100,
     .max = SECONDS(60),
     .meta = "TIME",
     .help = "How often this broker tells Redis that it lives."},
    {.key = "lease",
     .type = OPTION_DURATION,
     .group = GROUP_STORAGE,
     .offset = FIELD(lease),
     .fallback = "5s",
     .min = 200,
     .max = HOURS(1),
     .meta = "TIME",
     .help = "How long after its last heartbeat a broker counts as dead and its sessions are removed by the "
             "others; "
             "at least twice the heartbeat, and the same on all brokers."},
    {.key = "redis_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_STORAGE,
     .offset = FIELD(redis_timeout),
     .fallback = "5s",
     .min = 100,
     .max = SECONDS(300),
     .meta = "TIME",
     .help = "A Redis command unanswered for so long has failed, and its connection with it."},
    {.key = "redis_backoff_max",
     .type = OPTION_DURATION,
     .group = GROUP_STORAGE,
     .offset = FIELD(redis_backoff_max),
     .fallback = "5s",
     .min = 100,
     .max = SECONDS(300),
     .meta = "TIME",
     .help = "The longest wait between two attempts to reconnect to Redis; the first waits are shorter."},
    {.key = "direct_delivery",
     .type = OPTION_BOOL,
     .group = GROUP_STORAGE,
     .offset = FIELD(direct_delivery),
     .fallback = "yes",
     .meta = "yes|no",
     .help = "A message for a session of this very broker is delivered without waiting for Redis to send it back. "
             "No: all messages take the way through Redis, where whoever watches sees each of them."},
    {.key = "history_count",
     .type = OPTION_INTEGER,
     .group = GROUP_STORAGE,
     .offset = FIELD(history_count),
     .fallback = "1000",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .help = "How many stored messages are kept for each address. The same on all brokers."},
    {.key = "history_age",
     .type = OPTION_DURATION,
     .group = GROUP_STORAGE,
     .offset = FIELD(history_age),
     .fallback = "24h",
     .min = SECONDS(1),
     .max = HOURS(24) * 365,
     .meta = "TIME",
     .help = "And for how long at most. The same on all brokers."},
    {.key = "history_bytes",
     .type = OPTION_SIZE,
     .group = GROUP_STORAGE,
     .offset = FIELD(history_bytes),
     .fallback = "16MiB",
     .min = 64 * KIB,
     .max = 16 * GIB,
     .meta = "SIZE",
     .help = "And how many bytes of them, each counted 512 larger than it is; a message larger than that can't be stored. "
             "The same on all brokers."},
    {.key = "stored_addresses",
     .type = OPTION_INTEGER,
     .group = GROUP_STORAGE,
     .offset = FIELD(stored_addresses),
     .fallback = "50000",
     .min = 1,
     .max = 1000000000,
     .meta = "N",
     .help = "How many addresses may have stored messages; who would store at one more is answered limit. Each takes "
             "some 5 KB of Redis beside its messages. The same on all brokers."},
    {.key = "stored_bytes",
     .type = OPTION_SIZE,
     .group = GROUP_STORAGE,
     .offset = FIELD(stored_bytes),
     .fallback = "512MiB",
     .min = 64 * KIB,
     .max = 1024 * GIB,
     .meta = "SIZE",
     .help = "How many bytes may be stored at all of them together. Keep it well below Redis's maxmemory, which sessions "
             "need too. The same on all brokers."},
    {.key = "sender_addresses",
     .type = OPTION_INTEGER,
     .group = GROUP_STORAGE,
     .offset = FIELD(sender_addresses),
     .fallback = "12500",
     .min = 1,
     .max = 1000000000,
     .meta = "N",
     .help = "At how many addresses one sender (a user, a session without one, or all callers of the HTTP API) may have "
             "stored messages. The same on all brokers."},
    {.key = "sender_bytes",
     .type = OPTION_SIZE,
     .group = GROUP_STORAGE,
     .offset = FIELD(sender_bytes),
     .fallback = "128MiB",
     .min = 64 * KIB,
     .max = 1024 * GIB,
     .meta = "SIZE",
     .help = "And how many bytes of them. The same on all brokers."},

    {.key = "workers",
     .type = OPTION_INTEGER,
     .group = GROUP_LISTEN,
     .offset = FIELD(workers),
     .fallback = "1",
     .min = 1,
     .max = 256,
     .meta = "N",
     .help = "Processes that share the listening port, each an instance of its own, watched by a parent. "
             "Their APIs are on "
             "consecutive ports, beginning with that of api. More than one needs Redis."},
    {.key = "max_connections",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(max_connections),
     .fallback = "20000",
     .min = 1,
     .max = 10000000,
     .meta = "N",
     .reload = true,
     .help = "Connections beyond this number are answered 503. Descriptors are reserved for it at the start, and some "
             "2,000 more: a reload can raise it so far. Larger than needed, it makes the end of each connection slower."},
    {.key = "handshakes_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(handshakes_limit),
     .fallback = "1024",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "Connections that may be in their handshake, or be answered otherwise, at a time. Beyond that the one that has been "
             "silent for longest is dropped, and when all have begun to speak, newcomers are answered 503. Fewer where "
             "descriptors are short."},
    {.key = "address_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(address_limit),
     .fallback = "1000",
     .min = 1,
     .max = 10000000,
     .zero_allowed = true,
     .meta = "N",
     .reload = true,
     .help = "Connections that one client address (of IPv6: one network of 64 bits) may have; more are answered 429. "
             "Loopback and trusted_proxies are not counted. 0: no limit."},
    {.key = "trusted_proxies",
     .type = OPTION_LIST,
     .group = GROUP_LISTEN,
     .offset = FIELD(trusted_proxies),
     .fallback = "",
     .check = is_network,
     .form = "addresses or networks like 10.0.0.0/8",
     .meta = "NETWORK,...",
     .reload = true,
     .help = "Where the load balancers are: address_limit does not count what comes from there. Loopback is always "
             "trusted. May be given several times."},
    {.key = "head_limit",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(head_limit),
     .fallback = "16KiB",
     .min = KIB,
     .max = 64 * KIB,
     .meta = "SIZE",
     .help = "The largest head of a request (its first line and headers, cookies included); a larger one is answered "
             "431."},
    {.key = "max_message",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(max_message),
     .fallback = "1MiB",
     .min = KIB,
     .max = GIB,
     .meta = "SIZE",
     .reload = true,
     .help = "The largest message a client may send; a larger one closes its connection (1009). In another encoding it may "
             "become twice as large, beyond that it is refused (too_large)."},
    {.key = "outbox_limit",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(outbox_limit),
     .fallback = "4MiB",
     .min = 64 * KIB,
     .max = 16 * GIB,
     .meta = "SIZE",
     .reload = true,
     .help =
         "What may wait for one slow client before it is cut off (4008); at least max_message plus 64KiB."},
    {.key = "memory_budget",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(memory_budget),
     .fallback = "512MiB",
     .min = MIB,
     .max = 1024 * GIB,
     .meta = "SIZE",
     .reload = true,
     .help = "What this process keeps for all clients together: what waits to be written, messages that are not complete, "
             "held back or not answered by the storage, handshakes. Beyond it newcomers are answered 503, and the client "
             "is cut first that takes nothing and holds most (4008). At least outbox_limit."},
    {.key = "send_buffer",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(send_buffer),
     .fallback = "128KiB",
     .min = 4 * KIB,
     .max = GIB,
     .zero_allowed = true,
     .meta = "SIZE",
     .reload = true,
     .help = "SO_SNDBUF of each connection, of which the kernel makes twice as much: what it keeps at most for a client "
             "that doesn't read. 0: as large as the kernel likes."},
    {.key = "receive_buffer",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(receive_buffer),
     .fallback = "64KiB",
     .min = 4 * KIB,
     .max = GIB,
     .zero_allowed = true,
     .meta = "SIZE",
     .reload = true,
     .help = "SO_RCVBUF of each connection, likewise: what the kernel keeps at most of a client that sends faster than it "
             "is read."},
    {.key = "inflight_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(inflight_limit),
     .fallback = "256",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many messages of one client may wait for the storage; beyond that nothing more is read "
             "from it."},

    {.key = "inflight_total",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(inflight_total),
     .fallback = "2048",
     .min = 1,
     .max = 100000000,
     .meta = "N",
     .reload = true,
     .help = "How many messages of all clients together may wait for the storage before only those clients are read who have "
             "next to none waiting. A stored message counts for four, here and in inflight_limit."},

    {.key = "turn_commands",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(turn_commands),
     .fallback = "64",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many messages or commands of one client are carried out before the other clients have their turn, also of "
             "those that came in one message."},

    {.key = "turn_bytes",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(turn_bytes),
     .fallback = "16KiB",
     .min = 1,
     .max = GIB,
     .meta = "SIZE",
     .reload = true,
     .help = "The same in bytes."},

    {.key = "reads_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(reads_limit),
     .fallback = "3",
     .min = 1,
     .max = 10000,
     .meta = "N",
     .reload = true,
     .help = "How many reads of stored messages and of presence may be open at the storage at a time, for clients, recoveries "
             "and HTTP callers; others wait for their turn."},

    {.key = "session_reads",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(session_reads),
     .fallback = "2",
     .min = 1,
     .max = 1000,
     .meta = "N",
     .reload = true,
     .help = "How many of these one client may have open; what it sends after them waits."},

    {.key = "read_size",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(read_size),
     .fallback = "256KiB",
     .min = KIB,
     .max = 64 * MIB,
     .meta = "SIZE",
     .reload = true,
     .help = "How many bytes of stored messages are read at a time; at most half of max_message and a quarter of outbox_limit "
             "for a client."},

    {.key = "keys_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(keys_limit),
     .fallback = "50000",
     .min = 1,
     .max = 100000000,
     .meta = "N",
     .reload = true,
     .help = "How many messages with an idempotency key the clients of one broker may send within the five minutes that the "
             "storage remembers a key, whether it stores the message or not; HTTP callers may send as many again. A key takes "
             "0.2 to 0.7 KiB of the storage's memory, 2 KiB with the longest names."},

    {.key = "session_keys",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(session_keys),
     .fallback = "12500",
     .min = 1,
     .max = 100000000,
     .meta = "N",
     .reload = true,
     .help = "How many of them one session may send."},

    {.key = "target_checks",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(target_checks),
     .fallback = "500",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many times a second the registry is asked at most whether those who are to answer requests are still there."},

    {.key = "subscriptions_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(subscriptions_limit),
     .fallback = "256",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many topics and patterns one session may be subscribed to."},

    {.key = "patterns_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(patterns_limit),
     .fallback = "64",
     .min = 0,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many of them may be patterns. Every broker knows the patterns of all."},

    {.key = "pattern_tokens",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(pattern_tokens),
     .fallback = "8",
     .min = 1,
     .max = 128,
     .meta = "N",
     .reload = true,
     .help = "How many tokens a pattern may have. What it costs at worst to match a message doubles with each."},

    {.key = "max_patterns",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(max_patterns),
     .fallback = "10000",
     .min = 0,
     .max = 10000000,
     .meta = "N",
     .reload = true,
     .help = "How many different patterns the sessions of this broker may hold together."},

    {.key = "wildcards",
     .type = OPTION_BOOL,
     .group = GROUP_LIMITS,
     .offset = FIELD(wildcards),
     .fallback = "no",
     .meta = "yes|no",
     .reload = true,
     .help = "Allow patterns that begin with a wildcard. Every broker with one gets a copy of every message on a topic "
             "that it matches, of all topics there are."},

    {.key = "requests_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(requests_limit),
     .fallback = "256",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many requests of one session, and to one session, may be open at a time."},

    {.key = "api_limit",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(api_limit),
     .fallback = "1024",
     .min = 1,
     .max = 1000000,
     .meta = "N",
     .reload = true,
     .help = "How many HTTP requests to the API may wait for their answer at a time; more are answered 429."},

    {.key = "api_connections",
     .type = OPTION_INTEGER,
     .group = GROUP_LIMITS,
     .offset = FIELD(api_connections),
     .fallback = "1024",
     .min = 1,
     .max = 100000,
     .meta = "N",
     .reload = true,
     .help = "Connections to the API at a time; half of the descriptors that max_connections leaves, if that is less. "
             "Beyond it the idle ones make room, and when there are none newcomers are told health and else answered 503."},
    {.key = "api_memory",
     .type = OPTION_SIZE,
     .group = GROUP_LIMITS,
     .offset = FIELD(api_memory),
     .fallback = "64MiB",
     .min = MIB,
     .max = 16 * GIB,
     .meta = "SIZE",
     .reload = true,
     .help = "What bodies of HTTP requests and answers that wait to be taken may need in all; beyond it 429. At least "
             "16MiB and two of max_message, whatever this says."},

    {.key = "api_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(api_timeout),
     .fallback = "30s",
     .min = 100,
     .max = HOURS(1),
     .meta = "TIME",
     .reload = true,
     .help = "How long an HTTP caller may take to send a whole request (408), and again to take its answer."},
    {.key = "api_idle_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(api_idle_timeout),
     .fallback = "1m",
     .min = 100,
     .max = HOURS(1),
     .meta = "TIME",
     .reload = true,
     .help = "A connection to the API without a request is closed after so long."},
    {.key = "request_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(request_timeout),
     .fallback = "5m",
     .min = 1,
     .max = HOURS(24),
     .meta = "TIME",
     .reload = true,
     .help = "The longest that anybody may wait for the reply to a request."},

    {.key = "ping_interval",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(ping_interval),
     .fallback = "25s",
     .min = 100,
     .max = HOURS(24),
     .zero_allowed = true,
     .meta = "TIME",
     .reload = true,
     .help = "How often each client is pinged."},
    {.key = "ping_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(ping_timeout),
     .fallback = "10s",
     .min = 100,
     .max = HOURS(1),
     .meta = "TIME",
     .reload = true,
     .help = "A client that leaves a ping unanswered for so long, sends no message either and takes nothing of what waits "
             "for it, is closed (4001)."},
    {.key = "stall_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(stall_timeout),
     .fallback = "30s",
     .min = 100,
     .max = HOURS(1),
     .meta = "TIME",
     .reload = true,
     .help = "A client that takes nothing for so long of what waits for it is cut (4008), whatever it sends meanwhile."},
    {.key = "message_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(message_timeout),
     .fallback = "1m",
     .min = 100,
     .max = HOURS(1),
     .meta = "TIME",
     .reload = true,
     .help = "How long a message may take from its first piece to its last; a client that takes longer is cut (4009)."},
    {.key = "handshake_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(handshake_timeout),
     .fallback = "10s",
     .min = SECONDS(1),
     .max = SECONDS(300),
     .meta = "TIME",
     .help = "How long a new connection may take for its handshake (TLS and HTTP)."},
    {.key = "close_timeout",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(close_timeout),
     .fallback = "5s",
     .min = 100,
     .max = SECONDS(300),
     .meta = "TIME",
     .reload = true,
     .help = "How long a client may take to answer a close."},
    {.key = "drain_time",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(drain_time),
     .fallback = "10s",
     .min = 100,
     .max = HOURS(1),
     .zero_allowed = true,
     .meta = "TIME",
     .reload = true,
     .help = "On SIGTERM the clients are sent away evenly over this time."},
    {.key = "drain_delay",
     .type = OPTION_DURATION,
     .group = GROUP_TIMES,
     .offset = FIELD(drain_delay),
     .fallback = "1s",
     .min = 1,
     .max = HOURS(1),
     .zero_allowed = true,
     .meta = "TIME",
     .reload = true,
     .help = "How long clients that are sent away are asked to wait before they reconnect."},

    {.key = "log_level",
     .type = OPTION_ENUM,
     .group = GROUP_LOG,
     .offset = FIELD(log_level),
     .fallback = "info",
     .names = level_names,
     .meta = "LEVEL",
     .reload = true,
     .help = "What is less important is not logged."},
    {.key = "log_format",
     .type = OPTION_ENUM,
     .group = GROUP_LOG,
     .offset = FIELD(log_format),
     .fallback = "logfmt",
     .names = format_names,
     .meta = "FORMAT",
     .reload = true,
     .help = "How the lines on standard error look."},
};
/* clang-format on */

const size_t option_count = sizeof option_specs / sizeof option_specs[0];

const struct option_spec *option_find(const char *key)
{
    for (size_t i = 0; i < option_count; i++) {
        if (strcmp(option_specs[i].key, key) == 0)
            return &option_specs[i];
    }
    return NULL;
}

/* Levenshtein distance; words longer than any key are simply far. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[OPTION_NAME_SIZE], len_a = strlen(a), len_b = strlen(b);
    if (len_a >= OPTION_NAME_SIZE || len_b >= OPTION_NAME_SIZE)
        return OPTION_NAME_SIZE;
    for (size_t j = 0; j <= len_b; j++)
        rows[j] = j;
    for (size_t i = 1; i <= len_a; i++) {
        size_t diagonal = rows[0];
        rows[0] = i;
        for (size_t j = 1; j <= len_b; j++) {
            size_t above = rows[j], best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (rows[j - 1] + 1 < best)
                best = rows[j - 1] + 1;
            rows[j] = best;
            diagonal = above;
        }
    }
    return rows[len_b];
}

const char *option_nearest(const char *key)
{
    const char *nearest = NULL;
    size_t best = 4;
    for (size_t i = 0; i < option_count; i++) {
        size_t d = distance(key, option_specs[i].key);
        if (d < best && d < strlen(option_specs[i].key)) {
            best = d;
            nearest = option_specs[i].key;
        }
    }
    return nearest;
}

static const char *rename_key(const char *key, const char *prefix, char underscore, bool upper, char *out)
{
    char *write = stpcpy(out, prefix);
    for (; *key != '\0'; key++)
        *write++ = *key == '_' ? underscore : upper ? (char)toupper((unsigned char)*key) : *key;
    *write = '\0';
    return out;
}

const char *option_env_name(const struct option_spec *spec, char out[static OPTION_NAME_SIZE])
{
    return rename_key(spec->key, "SWITCHBOARD_", '_', true, out);
}

const char *option_long_name(const struct option_spec *spec, char out[static OPTION_NAME_SIZE])
{
    return rename_key(spec->key, "", '-', false, out);
}
