#include "storage/redis/redis_scripts.h"

#include "base/alloc.h"
#include "base/log.h"
#include "proto/errors.h"

#include <stdio.h>
#include <string.h>

/* A call keeps its arguments until it is answered, for the rare case that it has to be sent again. */
struct call {
    struct list link;
    struct redis_scripts *scripts;
    enum redis_script script;
    redis_on_reply *on_reply;
    void *data;
    size_t arg_count;    /* keys and arguments */
    struct buffer bulks; /* EVALSHA's arguments, formatted */
};

static void call_free(struct call *call)
{
    buffer_close(&call->bulks);
    mem_free(call);
}

static void call_finish(struct call *call, const struct redis_reply *reply, int error)
{
    redis_on_reply *on_reply = call->on_reply;
    void *data = call->data;

    call_free(call);
    on_reply(data, reply, error);
}

static void on_called(void *data, const struct redis_reply *reply, int error);

static int call_send(struct call *call)
{
    int error = redis_conn_command_raw(call->scripts->conn, slice_from(call->bulks.data, call->bulks.len),
                                       3 + call->arg_count, on_called, call);
    if (!error)
        call->scripts->in_flight++;
    return error;
}

static void on_reloaded(void *data, const struct redis_reply *reply, int error)
{
    (void)data, (void)reply, (void)error; /* the calls behind it tell */
}

static void load_again(struct redis_scripts *scripts)
{
    for (size_t i = 0; i < REDIS_SCRIPT_COUNT; i++) {
        const struct slice load[] = {slice_text("SCRIPT"), slice_text("LOAD"),
                                     slice_text(redis_script_texts[i])};
        if (redis_conn_command(scripts->conn, load, 3, on_reloaded, NULL) != 0)
            return;
    }
}

/* All calls made before the scripts were found missing have answered: now everything goes in order. */
static void send_again(struct redis_scripts *scripts)
{
    struct list calls, *node;

    log_info("redis forgot its scripts", log_str("action", "loading them again"));
    load_again(scripts);
    scripts->forgotten = false;
    list_init(&calls);
    list_splice(&calls, &scripts->refused);
    list_splice(&calls, &scripts->held);
    while ((node = list_pop(&calls))) {
        struct call *call = container_of(node, struct call, link);
        int error = call_send(call);
        if (error)
            call_finish(call, NULL, error);
    }
}

static void on_called(void *data, const struct redis_reply *reply, int error)
{
    struct call *call = data;
    struct redis_scripts *scripts = call->scripts;

    scripts->in_flight--;
    if (redis_reply_is_error(reply, "NOSCRIPT")) {
        scripts->forgotten = true;
        list_append(&scripts->refused, &call->link);
    } else {
        call_finish(call, reply, error);
    }
    if (scripts->forgotten && !scripts->in_flight && scripts->conn->state == REDIS_CONN_READY)
        send_again(scripts);
}

/* Of keys and arguments, the first may be apart from the rest. */
static struct call *call_create(struct redis_scripts *scripts, enum redis_script script, size_t key_count,
                                const struct slice *key, const struct slice *args, size_t count)
{
    struct call *call = mem_calloc(1, sizeof *call);
    size_t size = 256 + (key ? key->len : 0);
    char keys[24];

    if (!call)
        return NULL;
    for (size_t i = 0; i < count; i++)
        size += args[i].len + 24;
    call->scripts = scripts;
    call->script = script;
    call->arg_count = count + (key != NULL);
    list_init(&call->link);
    buffer_init(&call->bulks, 0);
    buffer_reserve(&call->bulks, size);
    redis_bulk_append(&call->bulks, slice_text("EVALSHA"));
    redis_bulk_append(&call->bulks, slice_from(scripts->hash[script], 40));
    redis_bulk_append(&call->bulks, slice_from(keys, (size_t)snprintf(keys, sizeof keys, "%zu", key_count)));
    if (key)
        redis_bulk_append(&call->bulks, *key);
    for (size_t i = 0; i < count; i++)
        redis_bulk_append(&call->bulks, args[i]);
    if (!call->bulks.failed)
        return call;
    call_free(call);
    return NULL;
}

/* Takes over the call, which is NULL when memory was short. */
static int call_start(struct redis_scripts *scripts, struct call *call, redis_on_reply *on_reply, void *data)
{
    int error = 0;

    if (!call)
        return ERROR_NO_MEMORY;
    call->on_reply = on_reply;
    call->data = data;
    if (scripts->forgotten)
        list_append(&scripts->held, &call->link);
    else
        error = call_send(call);
    if (error)
        call_free(call);
    return error;
}

int redis_script_call(struct redis_scripts *scripts, enum redis_script script, struct slice key,
                      const struct slice *args, size_t count, redis_on_reply *on_reply, void *data)
{
    if (scripts->conn->state != REDIS_CONN_READY)
        return ERROR_UNAVAILABLE;
    return call_start(scripts, call_create(scripts, script, 1, &key, args, count), on_reply, data);
}

int redis_script_call_keys(struct redis_scripts *scripts, enum redis_script script, size_t key_count,
                           const struct slice *args, size_t count, redis_on_reply *on_reply, void *data)
{
    if (scripts->conn->state != REDIS_CONN_READY)
        return ERROR_UNAVAILABLE;
    return call_start(scripts, call_create(scripts, script, key_count, NULL, args, count), on_reply, data);
}

void redis_scripts_drop(struct redis_scripts *scripts, int error)
{
    struct list calls, *node;

    scripts->forgotten = false;
    list_init(&calls);
    list_splice(&calls, &scripts->refused);
    list_splice(&calls, &scripts->held);
    while ((node = list_pop(&calls)))
        call_finish(container_of(node, struct call, link), NULL, error);
}

static void on_loaded(void *data, const struct redis_reply *reply, int error)
{
    struct redis_scripts *scripts = data;
    size_t i = scripts->next_loaded++;

    if (!error && reply->text.len == 40)
        memcpy(scripts->hash[i], reply->text.data, 40);
    else if (!error)
        error = ERROR_INTERNAL;
    if (error && !scripts->load_error) {
        scripts->load_error = error;
        scripts->loading = 0;
        if (reply)
            scripts->on_loaded(scripts->data, error, reply);
    } else if (!scripts->load_error && --scripts->loading == 0) {
        scripts->on_loaded(scripts->data, 0, reply);
    }
}

void redis_scripts_init(struct redis_scripts *scripts, struct redis_conn *conn)
{
    *scripts = (struct redis_scripts){.conn = conn};
    list_init(&scripts->refused);
    list_init(&scripts->held);
}

int redis_scripts_load(struct redis_scripts *scripts,
                       void (*on_loaded_all)(void *data, int error, const struct redis_reply *reply),
                       void *data)
{
    int error = 0;

    scripts->on_loaded = on_loaded_all;
    scripts->data = data;
    scripts->loading = REDIS_SCRIPT_COUNT;
    scripts->next_loaded = 0;
    scripts->load_error = 0;
    for (size_t i = 0; i < REDIS_SCRIPT_COUNT && !error; i++) {
        const struct slice load[] = {slice_text("SCRIPT"), slice_text("LOAD"),
                                     slice_text(redis_script_texts[i])};
        error = redis_conn_command(scripts->conn, load, 3, on_loaded, scripts);
    }
    return error;
}
