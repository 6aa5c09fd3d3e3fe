/* Prints what is published on a topic, one message a line. After an interruption it goes on where it was.
 *
 *     listen URL TOPIC [COUNT]          ends after COUNT messages */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <switchboard.h>

struct listener {
    struct event_base *base;
    long left; /* messages; 0: without end */
};

static void on_message(struct swb_client *client, const struct swb_message *message, void *data)
{
    struct listener *listener = data;

    printf("%s: ", message->to);
    fwrite(message->payload.data, 1, message->payload.len, stdout);
    putchar('\n');
    fflush(stdout);
    if (listener->left && --listener->left == 0)
        swb_client_stop(client);
}

static void on_recovery(struct swb_client *client, const struct swb_recovery *recovery, void *data)
{
    (void)client;
    (void)data;
    fprintf(stderr, "%s: %s\n", recovery->address,
            recovery->recovered ? "nothing was missed" : "messages may have been missed");
}

static void on_state(struct swb_client *client, const struct swb_status *status, void *data)
{
    struct listener *listener = data;

    (void)client;
    if (status->state == SWB_DOWN)
        fprintf(stderr, "offline: %s\n", status->reason);
    if (status->state == SWB_STOPPED || (status->state == SWB_DOWN && !status->reconnect))
        event_base_loopbreak(listener->base);
}

static void on_subscribed(struct swb_client *client, const struct swb_result *result, void *data)
{
    (void)data;
    fprintf(stderr, "subscribed: %s\n", result->text);
    if (result->error)
        swb_client_stop(client);
}

int main(int argc, char **argv)
{
    struct swb_options options = SWB_OPTIONS;
    struct listener listener = {.base = event_base_new()};

    if (argc < 3 || !listener.base) {
        fputs("usage: listen URL TOPIC [COUNT]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    listener.left = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    options.data = &listener;
    options.on_state = on_state;
    options.on_message = on_message;
    options.on_recovery = on_recovery;
    struct swb_client *client = swb_client_create(listener.base, &options);
    if (!client || swb_client_connect(client, argv[1]) != SWB_OK ||
        swb_begin_subscribe(client, argv[2], NULL, on_subscribed, NULL) != SWB_OK) {
        fputs("listen: bad URL or topic\n", stderr);
        return EXIT_FAILURE;
    }

    event_base_dispatch(listener.base);

    int status = swb_client_state(client) == SWB_STOPPED ? EXIT_SUCCESS : EXIT_FAILURE;
    swb_client_destroy(client);
    event_base_free(listener.base);
    return status;
}
