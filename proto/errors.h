/* The one list of errors and close codes: what a client, an HTTP caller or a log line is told when something
 * fails.
 *
 * Codes below 1000 answer a command; codes from 1000 on close a connection (RFC 6455 section 7.4). Of ours,
 * 4000 to 4499 mean "reconnect", 4500 to 4999 mean "stop": the same client would meet the same refusal again.
 */
#ifndef PROTO_ERRORS_H
#define PROTO_ERRORS_H

#include <stdbool.h>

/* X(symbol, code, name, reconnect or retry makes sense, text) */
#define ERROR_LIST(X)                                                                                        \
    X(ERROR_BAD_REQUEST, 400, "bad_request", false, "the request is malformed")                              \
    X(ERROR_UNAUTHORIZED, 401, "unauthorized", false, "valid credentials are required")                      \
    X(ERROR_FORBIDDEN, 403, "forbidden", false, "the credentials do not allow this")                         \
    X(ERROR_ABSENT, 404, "absent", true, "nobody holds this address and nothing was stored")                 \
    X(ERROR_UNKNOWN_COMMAND, 405, "unknown_command", false, "there is no such command")                      \
    X(ERROR_CONFLICT, 409, "conflict", false, "the name or id is in use")                                    \
    X(ERROR_GONE, 410, "gone", true, "the other side disconnected before it answered")                       \
    X(ERROR_TOO_LARGE, 413, "too_large", false, "larger than the configured limit")                          \
    X(ERROR_REFUSED, 422, "refused", false, "the other side refused to answer")                              \
    X(ERROR_LIMIT, 429, "limit", true, "a configured limit is reached")                                      \
    X(ERROR_CANCELLED, 499, "cancelled", false, "cancelled by the one who asked")                            \
    X(ERROR_INTERNAL, 500, "internal", true, "an internal error; the server's log has more")                 \
    X(ERROR_UNAVAILABLE, 503, "unavailable", true, "the storage is out of reach")                            \
    X(ERROR_TIMEOUT, 504, "timeout", true, "no answer before the deadline")                                  \
    X(ERROR_NO_MEMORY, 507, "no_memory", true, "memory is short")                                            \
    X(CLOSE_NORMAL, 1000, "normal", false, "closed normally")                                                \
    X(CLOSE_GOING_AWAY, 1001, "going_away", true, "the other side is going away")                            \
    X(CLOSE_PROTOCOL_ERROR, 1002, "protocol_error", false, "not a valid WebSocket frame")                    \
    X(CLOSE_INVALID_TEXT, 1007, "invalid_text", false, "a text message must be valid UTF-8")                 \
    X(CLOSE_TOO_BIG, 1009, "too_big", false, "the message is larger than max_message")                       \
    X(CLOSE_INTERNAL, 1011, "internal", true, "an internal error; the server's log has more")                \
    X(CLOSE_RESTART, 1012, "restart", true, "the server restarts, connect again")                            \
    X(CLOSE_UNAVAILABLE, 4000, "unavailable", true, "the storage is out of reach")                           \
    X(CLOSE_PING_TIMEOUT, 4001, "ping_timeout", true, "a ping was not answered in time")                     \
    X(CLOSE_SLOW_READER, 4008, "slow_reader", true, "messages were not read fast enough")                    \
    X(CLOSE_SLOW_SENDER, 4009, "slow_sender", true, "a message was not finished in time")                    \
    X(CLOSE_BAD_FRAME, 4500, "bad_frame", false, "the frame can not be understood")                          \
    X(CLOSE_REPLACED, 4501, "replaced", false, "a newer connection holds this name")                         \
    X(CLOSE_KICKED, 4502, "kicked", false, "disconnected by an operator")

enum error_code {
    ERROR_NONE = 0,
#define ERROR_ENUM(symbol, code, name, retry, text) symbol = (code),
    ERROR_LIST(ERROR_ENUM)
#undef ERROR_ENUM
};

struct error_info {
    int code;
    const char *name; /* for machines and log lines: [a-z_]+ */
    bool retry;       /* trying again, or reconnecting, can succeed */
    const char *text; /* for people */
};

/* The entry of `code`; one named "unknown" for a code that isn't in the list. Never NULL. */
const struct error_info *error_find(int code);

const char *error_name(int code);

#endif
