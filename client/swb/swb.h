/* What the parts of swb, the command line, share: commands and options in one table each, from which the parser, the help,
 * the completions and the dispatch read alike. */
#ifndef CLIENT_SWB_SWB_H
#define CLIENT_SWB_SWB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum exit_code {
    EXIT_OK = 0, /* done, delivered */
    EXIT_ERROR = 1,
    EXIT_USAGE = 2,
    EXIT_ABSENT = 3,
    EXIT_LATE = 4, /* timeout */
    EXIT_REFUSED = 5,
    EXIT_UNAVAILABLE = 6, /* no connection, or the broker's storage is out of reach */
};

/* X(symbol, long name, letter or 0, argument or NULL, summary) */
#define OPTION_LIST(X)                                                                                       \
    X(OPT_URL, "url", 'u', "URL", "the broker; default: $SWITCHBOARD_URL, or ~/.config/switchboard/url")     \
    X(OPT_API, "api", 0, "URL", "the HTTP API, or HOST:PORT; default: $SWITCHBOARD_API, or 127.0.0.1:8001")  \
    X(OPT_TOKEN, "token", 0, "TOKEN", "bearer token; default: $SWITCHBOARD_TOKEN")                           \
    X(OPT_CA_FILE, "ca-file", 0, "FILE", "PEM file to trust instead of the system's certificates")           \
    X(OPT_JSON, "json", 'j', NULL, "print JSON, one value a line")                                           \
    X(OPT_VERBOSE, "verbose", 'v', NULL, "print more: who, when, where; and what happens to the connection") \
    X(OPT_HELP, "help", 'h', NULL, "this text")                                                              \
    X(OPT_USER, "user", 0, "UID", "of this user")                                                            \
    X(OPT_SESSION, "session", 0, "NAME", "as session:NAME")                                                  \
    X(OPT_TOPIC, "topic", 't', "TOPIC", "a topic or pattern; may be given several times")                    \
    X(OPT_COUNT, "count", 'n', "N", "end after N messages")                                                  \
    X(OPT_DATA, "data", 'd', NULL, "the text is a JSON value")                                               \
    X(OPT_BINARY, "binary", 'b', NULL, "all of standard input is one binary message")                        \
    X(OPT_STORE, "store", 's', NULL, "keep the message in the address's history")                            \
    X(OPT_TTL, "ttl", 0, "TIME", "how long the stored message is worth keeping")                             \
    X(OPT_KEY, "key", 0, "KEY", "idempotency key: the same sender's is not delivered again within 5 minutes")     \
    X(OPT_TIMEOUT, "timeout", 0, "TIME", "how long to wait, as in 500ms, 5s, 2m; default 5s")                \
    X(OPT_PARALLEL, "parallel", 'p', "N", "programs run at a time; others wait; default 8")                  \
    X(OPT_STATE, "state", 0, "FILE", "where to remember what was printed last")                              \
    X(OPT_NO_RECOVER, "no-recover", 0, NULL, "begin now, whatever was missed")                               \
    X(OPT_SINCE, "since", 0, "OFFSET", "only what came after it, as OFFSET or EPOCH:OFFSET")                 \
    X(OPT_LIMIT, "limit", 'l', "N", "at most N; default 100")                                                \
    X(OPT_REVERSE, "reverse", 'r', NULL, "newest first")                                                     \
    X(OPT_INSTANCE, "instance", 0, "ID", "only of this instance")                                            \
    X(OPT_ROUTE, "route", 0, "ROUTE", "only of this route")                                                  \
    X(OPT_CODE, "code", 0, "N", "the close code; default 4502")                                              \
    X(OPT_REASON, "reason", 0, "TEXT", "the close reason")                                                   \
    X(OPT_CONNECTIONS, "connections", 'c', "N", "connections; default 1000")                                 \
    X(OPT_MESSAGES, "messages", 'm', "N", "messages or requests; default 10000")                             \
    X(OPT_SIZE, "size", 0, "BYTES", "of each payload; default 128")                                          \
    X(OPT_WINDOW, "window", 'w', "N", "messages or requests under way at a time; default 100")

enum option {
#define OPTION_ENUM(symbol, name, letter, argument, summary) symbol,
    OPTION_LIST(OPTION_ENUM)
#undef OPTION_ENUM
        OPT_COUNT_ALL
};

struct option_spec {
    const char *name;
    char letter;
    const char *argument;
    const char *summary;
};

extern const struct option_spec option_specs[OPT_COUNT_ALL];

struct args {
    const struct command *command;
    const char *values[OPT_COUNT_ALL]; /* the last given; flags: "" */
    const char **topics;               /* all --topic, owned array */
    size_t topic_count;
    char **words;
    size_t word_count;
};

struct command {
    const char *name;
    const char *usage;   /* the words behind it */
    const char *summary; /* one line */
    const char *details; /* paragraphs for --help; may be NULL */
    size_t min_words, max_words;
    bool program; /* what follows the options is a program with options of its own */
    int (*run)(const struct args *args);
    const enum option *options; /* its own, ended by OPT_COUNT_ALL; those before OPT_USER are everybody's */
};

extern const struct command commands[];
extern const size_t command_count;

/* ---- args.c */
bool args_parse(struct args *args, int argc, char **argv); /* false: it was said what is wrong */
bool args_has(const struct args *args, enum option option);
bool args_number(const struct args *args, enum option option, uint64_t otherwise, uint64_t *value);
bool args_duration(const struct args *args, enum option option, unsigned otherwise, unsigned *ms);

/* ---- help.c */
void help_print(const struct command *command); /* NULL: of all */
int command_help(const struct args *args);
int command_completion(const struct args *args);
int command_version(const struct args *args);

/* ---- settings.c: where to connect */
const char *settings_url(const struct args *args); /* NULL: it was said why not; the process's for good */
const char *settings_api(const struct args *args);
const char *settings_token(const struct args *args); /* NULL: none */
bool settings_check(const struct args *args);        /* false: it was said what is wrong */

/* ---- the commands */
int command_listen(const struct args *args);
int command_send(const struct args *args); /* and publish */
int command_request(const struct args *args);
int command_serve(const struct args *args);
int command_sub(const struct args *args);
int command_history(const struct args *args);
int command_presence(const struct args *args);
int command_online(const struct args *args);
int command_sessions(const struct args *args);
int command_session(const struct args *args);
int command_kick(const struct args *args);
int command_users(const struct args *args);
int command_topics(const struct args *args);
int command_instances(const struct args *args);
int command_stats(const struct args *args);
int command_drain(const struct args *args);
int command_bench(const struct args *args);

/* ---- output.c */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2))); /* "swb: …" on standard error */
int exit_code_of(int error);                                                  /* of an enum swb_error */

#endif
