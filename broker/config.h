/* The broker's configuration: one constant structure, read from the command line, the environment, a file and
 * the defaults (in this order of precedence), checked as a whole, and passed down.
 *
 * A configuration is reference-counted, because after a reload the sessions of the old one live on with its
 * routes. */
#ifndef BROKER_CONFIG_H
#define BROKER_CONFIG_H

#include "base/log.h"
#include "broker/route.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define CONFIG_ADDRESS_SIZE (INET6_ADDRSTRLEN + sizeof "[]:65535")

/* Room the outbox needs beyond one message of max_message: frame headers, envelopes, control frames. */
#define CONFIG_OUTBOX_SLACK 65536

struct config_address {
    bool off;
    uint16_t port;                  /* 0: any free one */
    char text[CONFIG_ADDRESS_SIZE]; /* canonical: 127.0.0.1:8000, [::1]:8000 or off */
    struct sockaddr_storage sockaddr;
    socklen_t sockaddr_len; /* 0 when off */
};

struct config_redis {
    enum { CONFIG_REDIS_NONE, CONFIG_REDIS_TCP, CONFIG_REDIS_UNIX } kind;
    char *host; /* TCP: a name or an address, IPv6 without brackets */
    uint16_t port;
    char *path;                /* UNIX */
    char *username, *password; /* NULL: not given */
    unsigned database;
};

struct config_list {
    char **items;
    size_t count;
};

enum config_storage { CONFIG_STORAGE_AUTO, CONFIG_STORAGE_MEMORY, CONFIG_STORAGE_REDIS };

/* Sizes are in bytes, times in milliseconds. broker/options.c says what each key means. */
struct config {
    struct config_address listen, api;
    char *api_token, *api_token_file; /* at most one; empty: none */
    char *api_hosts; /* separated by commas or spaces */
    bool insecure, direct_delivery;
    char *tls_cert, *tls_key; /* both or none; empty: none */
    struct config_list prefixes, trusted_proxies;

    enum config_storage storage; /* never AUTO once loaded */
    struct config_redis redis;
    char *prefix;
    char *instance; /* empty: to be generated */
    uint64_t heartbeat, lease, redis_timeout, redis_backoff_max, history_count, history_age;
    uint64_t history_bytes, stored_addresses, stored_bytes, sender_addresses, sender_bytes;

    uint64_t workers; /* processes */
    uint64_t max_connections, handshakes_limit, address_limit, head_limit, max_message, outbox_limit, inflight_limit, subscriptions_limit, requests_limit, api_limit;
    uint64_t inflight_total, turn_commands, turn_bytes, reads_limit, session_reads, read_size, target_checks;
    uint64_t keys_limit, session_keys;
    uint64_t api_connections, api_memory, api_timeout, api_idle_timeout;
    uint64_t patterns_limit, pattern_tokens, max_patterns;
    bool wildcards;
    uint64_t memory_budget, send_buffer, receive_buffer;
    uint64_t request_timeout, ping_interval, ping_timeout, handshake_timeout, close_timeout, drain_time, drain_delay;
    uint64_t stall_timeout, message_timeout;

    enum log_level log_level;
    enum log_format log_format;

    struct route **routes;
    size_t route_count;

    struct config_source *source; /* where it came from, for config_reload() */
    unsigned references;
};

enum config_outcome {
    CONFIG_LOADED,
    CONFIG_DONE,  /* --help and the like: what was asked for is printed; exit 0 */
    CONFIG_FAILED /* every problem found is printed; exit 2 */
};

/* Reads the configuration. With CONFIG_LOADED the caller owns one reference to `*config`; otherwise it is
 * NULL. What was asked for (help, version, …) goes to `out`, problems to `err`, one a line. argv and environ
 * are copied. */
enum config_outcome config_load(int argc, char *const argv[], char *const environ[], struct config **config,
                                FILE *out, FILE *err);

/* Reads the same sources again. Keys that can't change in a running process keep their old value, and a log
 * line says so. Returns a new configuration (one reference, the caller's), or NULL with every problem logged:
 * keep the old. */
struct config *config_reload(const struct config *old);

struct config *config_ref(struct config *config);
void config_unref(struct config *config); /* NULL is allowed */

/* True when clients must prove who they are; only then may the broker listen off loopback without `insecure`.
 */
bool config_has_auth(const struct config *config);

/* Reads the token that the API asks for, from the configuration or the file that it names. `*token` is the caller's, NULL when
 * none is asked for. False, and `problem` says why, when the file can't be read or holds no token. */
bool config_api_token(const struct config *config, char **token, char *problem, size_t size)
    __attribute__((warn_unused_result));

/* Writes the configuration as a file that reads back to the same, each value with its source; passwords are
 * replaced by ***, which does not read back. False when memory is short or `out` failed. */
bool config_print(const struct config *config, FILE *out);

void config_print_help(FILE *out);
void config_print_reference(FILE *out); /* Markdown, for the manual */

#endif
