/* A subscription with recovery begins with a look at where its topic's history stands (CALL_POSITION), and subscribes
 * since there. So its position is known from the first moment on, also while nothing was stored yet. */
#include "base/alloc.h"
#include "base/utf8.h"
#include "client/client_internal.h"
#include "client/json_text.h"
#include "client/pattern.h"

#include <stdio.h>
#include <string.h>

enum { LOCAL_ERRORS = 900 };

bool position_set(struct position *position, const char *epoch, const char *offset)
{
    char *new_epoch = mem_strdup(epoch);
    char *new_offset = mem_strdup(offset);

    if ((epoch && !new_epoch) || (offset && !new_offset)) {
        mem_free(new_epoch);
        mem_free(new_offset);
        return false;
    }
    position_close(position);
    *position = (struct position){true, new_epoch, new_offset};
    return true;
}

void position_close(struct position *position)
{
    mem_free(position->epoch);
    mem_free(position->offset);
    *position = (struct position){.known = false};
}

static struct subscription *find(struct swb_client *client, const char *topic)
{
    list_for_each (link, &client->subscriptions) {
        struct subscription *sub = container_of(link, struct subscription, link);
        if (strcmp(sub->topic, topic) == 0)
            return sub;
    }
    return NULL;
}

void subscription_destroy(struct subscription *sub)
{
    if (sub->call) {
        struct call *call = sub->call;
        call->sub = NULL;
        call->kind = CALL_UNSUBSCRIBE;
        call_end_soon(call, SWB_CANCELLED);
    }
    list_remove(&sub->link);
    position_close(&sub->position);
    mem_free(sub->topic);
    mem_free(sub);
}

static struct subscription *create(struct swb_client *client, const char *topic,
                                   const struct swb_subscribe_options *options)
{
    struct subscription *sub = mem_calloc(1, sizeof *sub);

    if (!sub)
        return NULL;
    list_init(&sub->link);
    sub->client = client;
    sub->topic = mem_strdup(topic);
    sub->pattern = pattern_is(topic);
    sub->presence = options->presence;
    sub->events = options->events;
    sub->recovery = !options->no_recovery && !sub->pattern;
    sub->since = options->everything || options->epoch;
    if (sub->topic && (!sub->since || position_set(&sub->position, options->epoch, options->offset)))
        return sub;
    subscription_destroy(sub);
    return NULL;
}

int swb_begin_subscribe(struct swb_client *client, const char *topic,
                        const struct swb_subscribe_options *options, swb_on_result *on_result, void *data)
{
    static const struct swb_subscribe_options defaults = {.presence = false};
    int error;

    if (!options)
        options = &defaults;
    if (!topic || !utf8_valid(topic, strlen(topic)) || !options->epoch != !options->offset ||
        (options->epoch && (options->everything || !utf8_valid(options->epoch, strlen(options->epoch)) ||
                            !utf8_valid(options->offset, strlen(options->offset)))))
        return SWB_BAD_REQUEST;
    struct call *call = call_create(client, CALL_SUBSCRIBE, 0, on_result, data, &error);
    if (!call)
        return error;
    struct subscription *sub = create(client, topic, options);
    if (!sub) {
        call_destroy(call);
        return SWB_NO_MEMORY;
    }
    struct subscription *former = find(client, topic);
    call->sub = sub;
    sub->call = call;
    list_append(&client->subscriptions, &sub->link);
    if (sub->recovery && !sub->since) {
        call->kind = CALL_POSITION;
        buffer_printf(&call->body, ",\"cmd\":\"history\",\"limit\":1,\"reverse\":true,\"address\":");
        struct buffer address;
        buffer_init(&address, 0);
        buffer_printf(&address, "topic:%s", topic);
        json_write_string(&call->body, address.data, address.len);
        call->body.failed |= address.failed;
        buffer_close(&address);
    }
    error = call_submit(call);
    if (error) {
        sub->call = NULL;
        subscription_destroy(sub);
    } else if (former) {
        subscription_destroy(former);
    }
    return error;
}

void subscription_write(const struct subscription *sub, struct buffer *out)
{
    buffer_append_text(out, ",\"cmd\":\"subscribe\"");
    json_write_field(out, "topic", sub->topic);
    if (sub->position.known && (sub->recovery || (sub->since && !sub->confirmed))) {
        buffer_append_text(out, ",\"since\":{");
        if (sub->position.epoch) {
            buffer_append_text(out, "\"epoch\":");
            json_write_string(out, sub->position.epoch, strlen(sub->position.epoch));
            json_write_field(out, "offset", sub->position.offset);
        }
        buffer_append_text(out, "}");
    }
    if (sub->presence)
        buffer_append_text(out, ",\"presence\":true");
    if (sub->events)
        buffer_append_text(out, ",\"events\":true");
}

static void tell(struct swb_client *client, const char *address, const struct swb_result *result)
{
    const struct swb_recovery recovery = {.address = address,
                                          .recovered = !result->error && result->recovered,
                                          .error = result->error,
                                          .text = result->text};

    if (client->options.on_recovery)
        client->options.on_recovery(client, &recovery, client->options.data);
}

/* The answer to a subscription made anew after a reconnect. */
static void restored(struct call *call, const struct swb_result *result)
{
    struct subscription *sub = call->sub;
    struct swb_client *client = call->client;
    struct buffer address;

    call_destroy(call);
    if (result->error >= LOCAL_ERRORS)
        return; /* the next connection tries again */
    buffer_init(&address, 0);
    buffer_printf(&address, "topic:%s", sub->topic);
    const char *text = buffer_text(&address);
    if (result->error)
        subscription_destroy(sub);
    tell(client, text ? text : "topic:", result);
    buffer_close(&address);
}

void subscription_reply(struct call *call, const struct swb_result *result)
{
    struct subscription *sub = call->sub;

    /* Nothing of the former history is left: what is stored next is its beginning. When memory is short here, the old
     * position stays, and the next recovery says once more that something is missing. */
    if (!result->error && sub->position.known && !result->recovered && !result->offset)
        position_set(&sub->position, NULL, NULL);
    if (!result->error)
        sub->confirmed = true;
    if (!call->counted) {
        restored(call, result);
        return;
    }
    if (result->error) {
        sub->call = NULL;
        call->sub = NULL;
        subscription_destroy(sub);
    }
    call_end(call, result);
}

void subscription_position(struct call *call, const struct swb_result *result)
{
    struct swb_client *client = call->client;
    struct position *position = call->sub ? &call->sub->position : &client->own;
    bool local = result->error >= LOCAL_ERRORS || result->error == SWB_TIMEOUT;
    bool ok = result->error || position->known || position_set(position, result->epoch, result->offset);

    if (!call->sub) {
        call_destroy(call);
    } else if (local || !ok) {
        const struct swb_result failed = {
            .error = ok ? result->error : SWB_NO_MEMORY,
            .text = ok ? result->text : swb_error_text(SWB_NO_MEMORY),
        };
        call->kind = CALL_SUBSCRIBE;
        subscription_reply(call, &failed);
    } else {
        /* Whoever may not read the history can still subscribe, without recovery. */
        call->sub->recovery = !result->error;
        call->kind = CALL_SUBSCRIBE;
        buffer_clear(&call->body);
        call_requeue(call, true);
        calls_flush(client);
    }
}

static bool look_up_own(struct swb_client *client)
{
    struct call *call = call_create_internal(client, CALL_POSITION);

    if (!call)
        return false;
    buffer_printf(&call->body, ",\"cmd\":\"history\",\"limit\":1,\"reverse\":true");
    json_write_field(&call->body, "address", client->hello.address);
    return call_submit(call) == SWB_OK;
}

void subscriptions_restore(struct swb_client *client)
{
    for (struct list *link = client->subscriptions.prev; link != &client->subscriptions; link = link->prev) {
        struct subscription *sub = container_of(link, struct subscription, link);
        if (sub->call || !sub->confirmed)
            continue;
        struct call *call = call_create_internal(client, CALL_SUBSCRIBE);
        if (!call) {
            ws_client_close(client->ws, 1001, "memory is short"); /* and once more after a while */
            return;
        }
        call->sub = sub;
        sub->call = call;
        call_requeue(call, true);
    }
    if (client->hello.address && !client->options.no_recovery && !client->own.known)
        look_up_own(client);
}

void subscriptions_note(struct swb_client *client, const struct swb_message *message)
{
    static const char topic[] = "topic:";

    if (!message->offset || !message->epoch)
        return;
    /* When memory is short, the former position stays: what is recovered later is then more than was missed. */
    if (client->hello.address && strcmp(client->hello.address, message->to) == 0)
        position_set(&client->own, message->epoch, message->offset);
    if (strncmp(message->to, topic, sizeof topic - 1) != 0)
        return;
    struct subscription *sub = find(client, message->to + sizeof topic - 1);
    if (sub && !sub->pattern)
        position_set(&sub->position, message->epoch, message->offset);
}
