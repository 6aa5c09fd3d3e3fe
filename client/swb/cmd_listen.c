#include "client/swb/link.h"
#include "client/swb/output.h"

#include <stdio.h>

struct listener {
    struct link link;
    uint64_t left; /* messages; 0: without end */
};

static void on_message(struct link *link, const struct swb_message *message)
{
    struct listener *listener = link->data;

    if (link->status >= 0)
        return;
    if (!print_message(link->args, message))
        link_end(link, EXIT_ERROR);
    else if (listener->left && --listener->left == 0)
        link_end(link, EXIT_OK);
}

static void on_recovery(struct link *link, const struct swb_recovery *recovery)
{
    if (recovery->error)
        link_fail(link, recovery->address, recovery->error, recovery->text);
    else if (!recovery->recovered)
        complain("%s: messages may be missing", recovery->address);
}

static void on_subscribed(struct swb_client *client, const struct swb_result *result, void *data)
{
    struct link *link = data;

    (void)client;
    if (result->error)
        link_fail(link, "subscribing", result->error, result->text);
}

int command_listen(const struct args *args)
{
    struct listener listener = {.link = {.lasting = true,
                                         .as_session = true,
                                         .on_message = on_message,
                                         .on_recovery = on_recovery,
                                         .data = &listener}};
    struct link *link = &listener.link;
    int status = EXIT_USAGE;

    if (!args_number(args, OPT_COUNT, 0, &listener.left))
        return status;
    if (link_open(link, args)) {
        for (size_t i = 0; i < args->topic_count; i++) {
            int error = swb_begin_subscribe(link->client, args->topics[i], NULL, on_subscribed, link);
            if (error)
                link_fail(link, args->topics[i], error, NULL);
        }
        status = link_run(link);
    } else {
        status = link->status;
    }
    link_close(link);
    return status;
}
