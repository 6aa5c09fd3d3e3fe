/* send, publish and request: one message from the command line, or one a line of standard input. */
#include "client/swb/lines.h"
#include "client/swb/link.h"
#include "client/swb/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Lines under way at a time; requests go one after the other, so that their answers come in order. */
enum { SEND_WINDOW = 256 };

struct sender {
    struct link link;
    struct lines lines;
    struct swb_send_options options;
    const char *target;
    enum swb_kind kind;
    unsigned timeout;
    unsigned under_way, window;
    bool publish, request;
    bool reading, ended;
    int worst; /* exit code: the last that was not 0 */
};

static void go_on(struct sender *sender)
{
    if (sender->reading && sender->under_way < sender->window && !sender->ended)
        lines_resume(&sender->lines);
    if (sender->ended && !sender->under_way)
        link_end(&sender->link, sender->worst);
}

static void print_receipt(const struct args *args, const struct swb_result *result)
{
    static const char *const names[] = {"", "delivered", "stored", "absent"};
    bool stored = result->offset && result->epoch;

    if (args_has(args, OPT_JSON))
        printf("{\"receipt\":\"%s\"%s%s%s%s%s}\n", names[result->receipt], stored ? ",\"epoch\":\"" : "",
               stored ? result->epoch : "", stored ? "\",\"offset\":\"" : "", stored ? result->offset : "",
               stored ? "\"" : "");
    else if (args_has(args, OPT_VERBOSE))
        printf("%s%s%s%s%s\n", names[result->receipt], stored ? " " : "", stored ? result->epoch : "",
               stored ? ":" : "", stored ? result->offset : "");
}

static void on_result(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct sender *sender = data;
    const struct args *args = sender->link.args;

    (void)client;
    sender->under_way--;
    if (result->error) {
        if (sender->link.status < 0)
            complain("%s: %s", sender->target, result->text);
        sender->worst = exit_code_of(result->error);
    } else if (sender->request) {
        print_message(args, &result->reply);
    } else {
        print_receipt(args, result);
        if (result->receipt == SWB_NOBODY)
            sender->worst = EXIT_ABSENT;
    }
    /* Without a connection the rest fails alike. */
    if (result->error == SWB_OFFLINE || result->error == SWB_LOST)
        link_end(&sender->link, EXIT_UNAVAILABLE);
    else
        go_on(sender);
}

static void begin(struct sender *sender, const void *text, size_t len)
{
    struct swb_client *client = sender->link.client;
    struct swb_payload payload = {sender->kind, text, len};
    int error;

    if (sender->request)
        error = swb_begin_request(client, sender->target, payload, sender->timeout, on_result, sender);
    else if (sender->publish)
        error = swb_begin_publish(client, sender->target, payload, &sender->options, on_result, sender);
    else
        error = swb_begin_send(client, sender->target, payload, &sender->options, on_result, sender);
    if (!error) {
        sender->under_way++;
        return;
    }
    complain("%s: %s", sender->target,
             error != SWB_BAD_REQUEST   ? swb_error_text(error)
             : sender->kind == SWB_JSON ? "the text is no JSON value"
                                        : "the text is not UTF-8");
    sender->worst = error == SWB_BAD_REQUEST ? EXIT_ERROR : exit_code_of(error);
}

static void on_line(const char *line, size_t len, void *data)
{
    struct sender *sender = data;

    begin(sender, line, len);
    if (sender->under_way >= sender->window)
        lines_pause(&sender->lines);
}

static void on_end(void *data)
{
    struct sender *sender = data;

    sender->ended = true;
    go_on(sender);
}

static bool read_options(struct sender *sender, const struct args *args)
{
    uint64_t ttl = 0;
    unsigned ttl_ms = 0;

    sender->target = args->words[0];
    sender->request = strcmp(args->command->name, "request") == 0;
    sender->publish = strcmp(args->command->name, "publish") == 0;
    sender->window = sender->request ? 1 : SEND_WINDOW;
    sender->kind = args_has(args, OPT_DATA) ? SWB_JSON : args_has(args, OPT_BINARY) ? SWB_BINARY : SWB_TEXT;
    if (!args_duration(args, OPT_TIMEOUT, 5000, &sender->timeout) ||
        !args_duration(args, OPT_TTL, 0, &ttl_ms))
        return false;
    ttl = ttl_ms;
    if (!sender->timeout) {
        complain("--timeout must be more than 0");
        return false;
    }
    if (args_has(args, OPT_BINARY) && (args->word_count > 1 || args_has(args, OPT_DATA))) {
        complain("--binary reads standard input: give neither a text nor --data");
        return false;
    }
    if (args_has(args, OPT_KEY) && args->word_count < 2 && !args_has(args, OPT_BINARY)) {
        complain("--key is for one message, not for each line of standard input: give a text, or --binary");
        return false;
    }
    if (ttl && !args_has(args, OPT_STORE)) {
        complain("--ttl goes with --store");
        return false;
    }
    sender->options = (struct swb_send_options){.store = args_has(args, OPT_STORE),
                                                .ttl = ttl,
                                                .key = args->values[OPT_KEY],
                                                .timeout = sender->timeout};
    return true;
}

static int run(const struct args *args)
{
    struct sender sender = {.worst = EXIT_OK};
    int status = EXIT_USAGE;

    if (!read_options(&sender, args))
        return status;
    sender.reading = args->word_count < 2;
    sender.link.lasting = sender.reading;
    sender.link.as_session = true;
    sender.lines.on_line = on_line;
    sender.lines.on_end = on_end;
    sender.lines.data = &sender;
    if (link_open(&sender.link, args)) {
        if (!sender.reading) {
            sender.ended = true;
            begin(&sender, args->words[1], strlen(args->words[1]));
            go_on(&sender);
        } else if (!lines_open(&sender.lines, sender.link.base, args_has(args, OPT_BINARY))) {
            link_end(&sender.link, EXIT_ERROR);
        }
        status = link_run(&sender.link);
    } else {
        status = sender.link.status;
    }
    link_close(&sender.link);
    lines_close(&sender.lines);
    return status;
}

int command_send(const struct args *args)
{
    return run(args);
}

int command_request(const struct args *args)
{
    return run(args);
}
