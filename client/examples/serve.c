/* Answers the requests to a session: each with its own text, "echo: " before it.
 *
 *     serve [URL]          as in serve 'ws://127.0.0.1:8000/connect?session=userSever_8080'
 *
 * SIGINT and SIGTERM end it. */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <switchboard.h>

static void on_request(struct swb_client *client, struct swb_request *request, void *data)
{
    const struct swb_message *question = swb_request_message(request);
    char answer[4096];

    (void)client;
    (void)data;
    if (question->payload.kind != SWB_TEXT) {
        swb_request_refuse(request, "only text is answered here");
        return;
    }
    /* It could as well be kept, and answered later from another callback. */
    snprintf(answer, sizeof answer, "echo: %s", (const char *)question->payload.data);
    swb_request_reply(request, swb_text(answer));
}

static void on_state(struct swb_client *client, const struct swb_status *status, void *data)
{
    struct event_base *base = data;

    (void)client;
    if (status->state == SWB_ONLINE)
        printf("online as session:%s\n", status->hello->session);
    else if (status->state == SWB_DOWN)
        printf("offline (%s)%s\n", status->reason, status->reconnect ? ", connecting again" : "");
    fflush(stdout);
    if (status->state == SWB_STOPPED || (status->state == SWB_DOWN && !status->reconnect))
        event_base_loopbreak(base);
}

static void on_signal(evutil_socket_t number, short what, void *data)
{
    (void)number;
    (void)what;
    swb_client_stop(data);
}

int main(int argc, char **argv)
{
    struct event_base *base = event_base_new();
    struct swb_options options = SWB_OPTIONS;

    signal(SIGPIPE, SIG_IGN);
    options.on_state = on_state;
    options.data = base;
    struct swb_client *client = base ? swb_client_create(base, &options) : NULL;
    if (!client || swb_client_connect(client, argc > 1 ? argv[1] : NULL) != SWB_OK) {
        fputs("serve: give a URL, or set SWITCHBOARD_URL\n", stderr);
        return EXIT_FAILURE;
    }
    swb_client_serve(client, on_request, NULL);
    struct event *interrupt = evsignal_new(base, SIGINT, on_signal, client);
    struct event *terminate = evsignal_new(base, SIGTERM, on_signal, client);
    event_add(interrupt, NULL);
    event_add(terminate, NULL);

    event_base_dispatch(base);

    int status = swb_client_state(client) == SWB_STOPPED ? EXIT_SUCCESS : EXIT_FAILURE;
    event_free(interrupt);
    event_free(terminate);
    swb_client_destroy(client);
    event_base_free(base);
    return status;
}
