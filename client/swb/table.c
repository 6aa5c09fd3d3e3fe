/* All commands and options. */
#include "client/swb/swb.h"

const struct option_spec option_specs[OPT_COUNT_ALL] = {
#define OPTION_ROW(symbol, name, letter, argument, summary) [symbol] = {name, letter, argument, summary},
    OPTION_LIST(OPTION_ROW)
#undef OPTION_ROW
};

#define OPTIONS(...)                                                                                         \
    (const enum option[])                                                                                    \
    {                                                                                                        \
        __VA_ARGS__, OPT_COUNT_ALL                                                                           \
    }
#define NO_OPTIONS                                                                                           \
    (const enum option[])                                                                                    \
    {                                                                                                        \
        OPT_COUNT_ALL                                                                                        \
    }
enum { MANY = 1000000 };

/* clang-format off */
const struct command commands[] = {
    {"listen", "", "print the messages that a session receives",
     "Connects as a session of --user, as --session NAME, or anonymously, subscribes to each --topic, and prints every\n"
     "message, one a line.",
     0, 0, false, command_listen, OPTIONS(OPT_USER, OPT_SESSION, OPT_TOPIC, OPT_COUNT)},
    {"send", "ADDRESS [TEXT]", "send a message to session:NAME, user:UID or topic:NAME",
     "Without TEXT each line of standard input is a message. Prints the receipt with -v; exits with 3 when nobody was\n"
     "there and nothing was stored.\n\n"
     "With --key, which is for one message, the same user's same key to the same address is not delivered again within\n"
     "5 minutes. So a command that may be repeated names the user as well: with --user, in the URL or by its token. Each\n"
     "anonymous run is somebody else, whose key is new.",
     1, 2, false, command_send,
     OPTIONS(OPT_USER, OPT_DATA, OPT_BINARY, OPT_STORE, OPT_TTL, OPT_KEY, OPT_TIMEOUT)},
    {"publish", "TOPIC [TEXT]", "send a message to a topic",
     "As `swb send topic:TOPIC`.",
     1, 2, false, command_send,
     OPTIONS(OPT_USER, OPT_DATA, OPT_BINARY, OPT_STORE, OPT_TTL, OPT_KEY, OPT_TIMEOUT)},
    {"request", "ADDRESS [TEXT]", "ask a session or a user, and print the answer",
     "Without TEXT each line of standard input is a question; the answers come in the same order. Exits with 3 when\n"
     "nobody is there, 4 when no answer came in time, 5 when it was refused or the other side left.",
     1, 2, false, command_request, OPTIONS(OPT_DATA, OPT_BINARY, OPT_TIMEOUT)},
    {"serve", "COMMAND [ARGUMENT]...", "answer requests with a program's output",
     "For each request COMMAND is run with the payload on standard input; what it prints is the answer (without the last\n"
     "line break). When it fails, the request is refused with the last line of its standard error. It finds the asker's\n"
     "address in SWITCHBOARD_FROM and the payload's kind (text, binary, json) in SWITCHBOARD_KIND, and gets SIGTERM when\n"
     "nobody waits for the answer any more.",
     1, MANY, true, command_serve, OPTIONS(OPT_USER, OPT_SESSION, OPT_PARALLEL, OPT_DATA)},
    {"sub", "TOPIC...", "print what is published on topics or patterns, and what was missed",
     "Remembers what it printed last, and next time begins with the stored messages that came in between: for topics,\n"
     "and, given a pattern, for all topics that it has seen. It remembers in --state FILE, or in a file for that URL and\n"
     "those topics below ~/.local/state/switchboard/. --since OFFSET, as EPOCH:OFFSET or `all`, begins there instead.",
     1, MANY, false, command_sub, OPTIONS(OPT_COUNT, OPT_STATE, OPT_NO_RECOVER, OPT_SINCE)},
    {"history", "ADDRESS", "print an address's stored messages", NULL,
     1, 1, false, command_history, OPTIONS(OPT_LIMIT, OPT_REVERSE, OPT_SINCE)},
    {"presence", "ADDRESS", "print who is on a topic, or which sessions a user or name has",
     "Exits with 3 when nobody is there.",
     1, 1, false, command_presence, NO_OPTIONS},
    {"online", "", "print the number of sessions on all instances", NULL,
     0, 0, false, command_online, NO_OPTIONS},
    {"sessions", "", "list the sessions of all instances", NULL,
     0, 0, false, command_sessions, OPTIONS(OPT_USER, OPT_INSTANCE, OPT_ROUTE, OPT_LIMIT)},
    {"session", "NAME", "show a session", NULL,
     1, 1, false, command_session, NO_OPTIONS},
    {"kick", "NAME", "close a session's connection", NULL,
     1, 1, false, command_kick, OPTIONS(OPT_CODE, OPT_REASON)},
    {"users", "UID", "show a user's sessions", NULL,
     1, 1, false, command_users, NO_OPTIONS},
    {"topics", "", "list the topics that are subscribed to", NULL,
     0, 0, false, command_topics, NO_OPTIONS},
    {"instances", "", "list the instances", NULL,
     0, 0, false, command_instances, NO_OPTIONS},
    {"stats", "", "show an instance's counters", NULL,
     0, 0, false, command_stats, NO_OPTIONS},
    {"drain", "INSTANCE", "have an instance's clients move to the others", NULL,
     1, 1, false, command_drain, NO_OPTIONS},
    {"bench", "[connections|fanout|unicast|requests]", "measure",
     "connections: how fast sessions come online. fanout: messages to a topic that all connections subscribe to.\n"
     "unicast: messages from each connection to its own session. requests: each connection asks another, which answers.\n"
     "Without a word: all four.",
     0, 1, false, command_bench, OPTIONS(OPT_CONNECTIONS, OPT_MESSAGES, OPT_SIZE, OPT_WINDOW)},
    {"completion", "bash|zsh", "print a completion script",
     "For bash: source <(swb completion bash). For zsh: swb completion zsh > a file _swb in $fpath.",
     1, 1, false, command_completion, NO_OPTIONS},
    {"help", "[COMMAND]", "explain a command, or list all", NULL,
     0, 1, false, command_help, NO_OPTIONS},
    {"version", "", "print the version", NULL,
     0, 0, false, command_version, NO_OPTIONS},
};
/* clang-format on */

const size_t command_count = sizeof commands / sizeof *commands;
