#include "client/client_internal.h"

#include <string.h>

static void on_message(struct swb_client *client, json_t *root, struct slice text)
{
    struct swb_message message;
    struct buffer storage;

    buffer_init(&storage, 0);
    if (!read_message(root, text, &message, &storage)) {
        client_bad_frame(client, "a message can not be understood");
    } else {
        if (client->options.on_message)
            client->options.on_message(client, &message, client->options.data);
        if (!client->doomed)
            subscriptions_note(client, &message);
    }
    buffer_close(&storage);
}

static void on_hello(struct swb_client *client, json_t *root, struct slice text)
{
    (void)text;
    client_hello(client, root);
}

static void on_cancel(struct swb_client *client, json_t *root, struct slice text)
{
    const char *id = json_text(root, "request");

    (void)text;
    if (id)
        request_cancel(client, id);
}

static void on_presence(struct swb_client *client, json_t *root, struct slice text)
{
    const struct swb_presence_event event = {
        .joined = strcmp(json_text(root, "push"), "join") == 0,
        .topic = json_text(root, "topic"),
        .session = json_text(root, "session"),
        .user = json_text(root, "user"),
    };

    (void)text;
    if (event.topic && event.session && client->options.on_presence)
        client->options.on_presence(client, &event, client->options.data);
}

static void on_recovered(struct swb_client *client, json_t *root, struct slice text)
{
    const struct swb_recovery recovery = {
        .address = json_text(root, "address"),
        .recovered = json_is_true(json_object_get(root, "recovered")),
        .text = swb_error_text(SWB_OK),
    };

    (void)text;
    if (recovery.address && client->options.on_recovery)
        client->options.on_recovery(client, &recovery, client->options.data);
}

static void on_disconnect(struct swb_client *client, json_t *root, struct slice text)
{
    uint64_t delay = json_number(root, "delay");
    enum { DELAY_MAX = 3600 * 1000 };

    (void)text;
    client->hinted = true;
    client->hint = (unsigned)(delay < DELAY_MAX ? delay : DELAY_MAX);
    client->hint_stop = json_is_false(json_object_get(root, "reconnect"));
}

static const struct {
    const char *name;
    void (*handle)(struct swb_client *client, json_t *root, struct slice text);
} pushes[] = {
    {"message", on_message}, {"request", request_arrived},  {"cancel", on_cancel},
    {"hello", on_hello},     {"recovered", on_recovered},   {"join", on_presence},
    {"leave", on_presence},  {"disconnect", on_disconnect},
};

void frame_handle(struct swb_client *client, struct slice text)
{
    json_t *root = json_loadb(text.data, text.len, JSON_ALLOW_NUL, NULL);

    if (!json_is_object(root)) {
        json_decref(root);
        client_bad_frame(client, "the broker sent what is no frame");
        return;
    }
    const char *push = json_text(root, "push");
    if (push) {
        for (size_t i = 0; i < sizeof pushes / sizeof *pushes; i++) {
            if (strcmp(push, pushes[i].name) == 0) {
                pushes[i].handle(client, root, text);
                break;
            }
        }
    } else {
        reply_handle(client, root, text);
    }
    json_decref(root);
}
