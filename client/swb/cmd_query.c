/* history, presence and online: one question to the broker, then its answer. */
#include "client/json_text.h"
#include "client/swb/link.h"
#include "client/swb/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool failed(struct link *link, const struct swb_result *result)
{
    if (result->error)
        link_fail(link, link->args->word_count ? link->args->words[0] : link->args->command->name,
                  result->error, result->text);
    return result->error != SWB_OK;
}

/* Of --since OFFSET or EPOCH:OFFSET, as `swb send -v` prints it. */
static const char *since_offset(const struct args *args)
{
    const char *since = args->values[OPT_SINCE], *colon = since ? strchr(since, ':') : NULL;

    return colon ? colon + 1 : since;
}

/* Whether `epoch` is another one than that of --since, if it has one. */
static bool is_other_epoch(const struct args *args, const char *epoch)
{
    const char *since = args->values[OPT_SINCE], *colon = since ? strchr(since, ':') : NULL;

    return epoch && colon &&
           (strlen(epoch) != (size_t)(colon - since) || memcmp(epoch, since, strlen(epoch)) != 0);
}

static void on_history(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct link *link = data;

    (void)client;
    if (failed(link, result))
        return;
    for (size_t i = 0; i < result->message_count; i++)
        print_message(link->args, &result->messages[i]);
    if (is_other_epoch(link->args, result->epoch))
        complain("%s: messages may be missing", link->args->words[0]);
    link_end(link, EXIT_OK);
}

static void print_present_json(const struct swb_result *result)
{
    struct buffer line;

    buffer_init(&line, 0);
    for (size_t i = 0; i < result->present_count; i++) {
        const struct swb_present *present = &result->present[i];
        buffer_clear(&line);
        buffer_append_text(&line, "{\"session\":");
        json_write_string(&line, present->session, strlen(present->session));
        json_write_field(&line, "user", present->user);
        buffer_append_text(&line, "}\n");
        if (!line.failed)
            print_json_text(line.data, line.len);
    }
    buffer_close(&line);
}

static void on_presence(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct link *link = data;

    (void)client;
    if (failed(link, result))
        return;
    if (args_has(link->args, OPT_JSON)) {
        print_present_json(result);
    } else {
        for (size_t i = 0; i < result->present_count; i++) {
            const struct swb_present *present = &result->present[i];
            print_name(present->session);
            if (present->user) {
                putchar('\t');
                print_name(present->user);
            }
            putchar('\n');
        }
    }
    if (result->count > result->present_count)
        complain("%" PRIu64 " in all, of which %zu are listed", result->count, result->present_count);
    link_end(link, result->online ? EXIT_OK : EXIT_ABSENT);
}

static void on_count(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct link *link = data;

    (void)client;
    if (failed(link, result))
        return;
    printf(args_has(link->args, OPT_JSON) ? "{\"count\":%" PRIu64 "}\n" : "%" PRIu64 "\n", result->count);
    link_end(link, EXIT_OK);
}

static int run(const struct args *args, int (*begin)(struct link *link))
{
    struct link link = {.data = NULL};
    int status;

    if (link_open(&link, args)) {
        int error = begin(&link);
        if (error)
            link_fail(&link, args->command->name, error, NULL);
        status = link_run(&link);
    } else {
        status = link.status;
    }
    link_close(&link);
    return status;
}

static int begin_history(struct link *link)
{
    const struct args *args = link->args;
    struct swb_history_options options = {.since = since_offset(args),
                                          .reverse = args_has(args, OPT_REVERSE)};
    uint64_t limit;

    args_number(args, OPT_LIMIT, 0, &limit);
    options.limit = (unsigned)limit;
    return swb_begin_history(link->client, args->words[0], &options, on_history, link);
}

static int begin_presence(struct link *link)
{
    return swb_begin_presence(link->client, link->args->words[0], on_presence, link);
}

static int begin_online(struct link *link)
{
    return swb_begin_online(link->client, on_count, link);
}

int command_history(const struct args *args)
{
    uint64_t limit;

    const char *since = args->values[OPT_SINCE], *offset = since_offset(args);

    if (!args_number(args, OPT_LIMIT, 0, &limit))
        return EXIT_USAGE;
    if (since && (!*offset || *since == ':')) {
        complain("--since takes OFFSET or EPOCH:OFFSET");
        return EXIT_USAGE;
    }
    return run(args, begin_history);
}

int command_presence(const struct args *args)
{
    return run(args, begin_presence);
}

int command_online(const struct args *args)
{
    return run(args, begin_online);
}
