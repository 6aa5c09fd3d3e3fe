/* What this process counts, under the names /metrics shows (Prometheus text format). */
#ifndef BROKER_METRICS_H
#define BROKER_METRICS_H

#include <stdint.h>

/* X(field, name, help): counters; each is shown as switchboard_<name>_total. */
#define METRICS_COUNTERS(X)                                                                                  \
    X(accepted, "connections_accepted", "TCP connections accepted")                                          \
    X(refused_full, "connections_refused_full", "Connections refused because max_connections is reached")    \
    X(refused_memory, "connections_refused_memory", "Connections refused because memory_budget is used up")  \
    X(refused_unavailable, "connections_refused_unavailable", "Upgrades refused while the storage is down")  \
    X(refused_request, "connections_refused_request", "Upgrades refused for their path or headers")          \
    X(refused_address, "connections_refused_address", "Connections refused because their address has too many")  \
    X(refused_handshakes, "connections_refused_handshakes",                                                  \
      "Connections refused or dropped because handshakes_limit is reached")                                  \
    X(handshakes_timed_out, "handshakes_timed_out", "Connections that did not finish their handshake in time") \
    X(tls_failed, "tls_failed", "Connections whose TLS handshake failed")                                    \
    X(sessions_opened, "sessions_opened", "Sessions that came online")                                       \
    X(sessions_closed, "sessions_closed", "Sessions that ended")                                             \
    X(sessions_replaced, "sessions_replaced", "Sessions closed because a newer connection took the name")    \
    X(sessions_slow, "sessions_slow", "Sessions cut because more than outbox_limit waited for them")         \
    X(sessions_stalled, "sessions_stalled", "Sessions cut because they took nothing for stall_timeout")      \
    X(sessions_shed, "sessions_shed", "Sessions cut because memory_budget was used up")                      \
    X(sessions_unfinished, "sessions_unfinished", "Sessions cut for a message unfinished at message_timeout") \
    X(sessions_silent, "sessions_silent", "Sessions closed because a ping was not answered")                 \
    X(messages_received, "messages_received", "Messages received from clients")                              \
    X(bytes_received, "bytes_received", "Payload bytes received from clients")                               \
    X(messages_delivered, "messages_delivered", "Messages queued to clients")                                \
    X(bytes_sent, "bytes_sent", "Bytes written to clients, frame headers included")                          \
    X(messages_too_big, "messages_too_big", "Messages refused because they exceed max_message")              \
    X(messages_invalid, "messages_invalid", "Text messages that were not UTF-8")                             \
    X(frames_invalid, "frames_invalid", "Connections closed for frames that break RFC 6455")                 \
    X(published, "published", "Messages handed to the bus")                                                  \
    X(published_absent, "published_absent", "Of those, the ones nobody received")                            \
    X(published_directly, "published_directly", "Of those, the ones delivered here without waiting for Redis")  \
    X(publish_failed, "publish_failed", "Messages the bus did not take")                                     \
    X(stored_refused, "stored_refused", "Of those, the ones to be stored for which a limit is reached")      \
    X(keys_refused, "keys_refused", "Messages with an idempotency key refused because of keys_limit, session_keys") \
    X(bus_messages, "bus_messages", "Messages that came over the bus, or directly")                           \
    X(bus_invalid, "bus_invalid", "Of those, the ones that could not be read")                               \
    X(requests_asked, "requests_asked", "Requests asked by sessions and HTTP callers")                         \
    X(requests_answered, "requests_answered", "Replies and refusals that sessions here gave")                \
    X(subscriptions, "subscriptions", "Topics and patterns that sessions subscribed to")                     \
    X(pattern_messages, "pattern_messages", "Bus messages that came for patterns")                           \
    X(patterns_refused_full, "patterns_refused_full", "Patterns refused because max_patterns is reached")    \
    X(patterns_refused_limit, "patterns_refused_limit", "Patterns refused because of patterns_limit")        \
    X(patterns_refused_tokens, "patterns_refused_tokens", "Patterns refused because of pattern_tokens")      \
    X(patterns_refused_wild, "patterns_refused_wild", "Patterns refused because they begin with a wildcard") \
    X(recoveries, "recoveries", "Recoveries of stored messages")                                             \
    X(commands, "commands", "Commands of structured clients")                                                \
    X(commands_failed, "commands_failed", "Of those, the ones answered with an error")                       \
    X(turns_used_up, "turns_used_up", "Times a client had to wait for its next turn")                           \
    X(sessions_crowded, "sessions_crowded", "Times a client was not read because of inflight_total")            \
    X(reads_delayed, "reads_delayed", "Reads of history and presence that had to wait for their turn")          \
    X(targets_checked, "targets_checked", "Times the registry was asked whether somebody who is asked is there") \
    X(api_answered, "api_answered", "HTTP requests to the API that were answered with success")              \
    X(api_refused, "api_refused", "HTTP requests to the API that were refused, 4xx")                         \
    X(api_failed, "api_failed", "HTTP requests to the API that failed, 5xx")                                 \
    X(log_lines_dropped, "log_lines_dropped", "Lines of the log that were lost because nobody read it fast enough") \
    X(api_accepted, "api_connections_accepted", "Connections to the API accepted")                           \
    X(api_displaced, "api_connections_displaced", "Of those, the ones closed for a newcomer's sake")         \
    X(api_surplus, "api_connections_surplus", "Connections beyond api_connections, told health only")        \
    X(api_slow, "api_slow", "HTTP requests and answers to the API that were cut at api_timeout")             \
    X(storage_outages, "storage_outages", "Times the storage was lost")                                      \
    X(reaped, "reaped_sessions", "Sessions of dead instances removed by this one")

struct metrics {
#define METRICS_FIELD(field, name, help) uint64_t field;
    METRICS_COUNTERS(METRICS_FIELD)
#undef METRICS_FIELD
};

struct buffer;

/* Appends all counters in the Prometheus text exposition format, version 0.0.4. */
void metrics_write(const struct metrics *metrics, struct buffer *out);

/* Appends one gauge with its HELP and TYPE lines; `name` without the switchboard_ prefix. */
void metrics_write_gauge(const char *name, const char *help, double value, struct buffer *out);

#endif
