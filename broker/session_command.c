/* From a structured client: commands, their answers, and the pushes that are no messages (docs/protocol.md). */
#include "base/clock.h"
#include "broker/config.h"
#include "broker/metrics.h"
#include "broker/route.h"
#include "broker/session_internal.h"
#include "proto/errors.h"
#include "proto/frame.h"
#include "proto/push.h"
#include "proto/topic.h"
#include "proto/writer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- frames ---- */

void session_frame_begin(struct session *session, struct writer *writer)
{
    buffer_clear(&session->sessions->frame);
    writer_begin(writer, (enum face)session->face, &session->sessions->frame);
}

void session_frame_end(struct session *session, struct writer *writer)
{
    const struct buffer *bytes = writer->out;
    enum frame_opcode opcode = session->face == FACE_JSON ? FRAME_TEXT : FRAME_BINARY;
    struct frame *frame = bytes->failed ? NULL : frame_create(opcode, slice_from(bytes->data, bytes->len));

    if (frame) {
        session_push(session, frame);
    } else if (!session->close_code) { /* else this was the last that it would have heard */
        log_error("session ended", log_slice("session", session_name(session)),
                  log_str("reason", error_name(ERROR_NO_MEMORY)));
        session_end(session, CLOSE_INTERNAL);
    }
    frame_unref(frame);
}

bool session_ok_begin(struct session *session, struct writer *writer, int64_t id, size_t count)
{
    if (!id || session->state != SESSION_ONLINE)
        return false;
    session_frame_begin(session, writer);
    writer_map(writer, 2);
    writer_pair_int(writer, "id", id);
    writer_key(writer, "ok");
    writer_map(writer, count);
    return true;
}

void session_ok_end(struct session *session, struct writer *writer)
{
    writer_end(writer);
    writer_end(writer);
    session_frame_end(session, writer);
}

void session_ok_empty(struct session *session, int64_t id)
{
    struct writer writer;

    if (session_ok_begin(session, &writer, id, 0))
        session_ok_end(session, &writer);
}

/* An error, also for a frame whose id is not known (0). */
static void push_error(struct session *session, int64_t id, int code, struct slice text)
{
    const struct error_info *info = error_find(code);
    struct writer writer;

    if (session->state != SESSION_ONLINE)
        return;
    session_frame_begin(session, &writer);
    writer_map(&writer, 2);
    writer_pair_int(&writer, "id", id);
    writer_key(&writer, "error");
    writer_map(&writer, 4);
    writer_pair_int(&writer, "code", info->code);
    writer_pair_str(&writer, "name", slice_text(info->name));
    writer_pair_str(&writer, "text", text.len ? text : slice_text(info->text));
    writer_pair_bool(&writer, "retry", info->retry);
    writer_end(&writer);
    writer_end(&writer);
    session_frame_end(session, &writer);
}

void session_error(struct session *session, int64_t id, int code, struct slice text)
{
    session->sessions->options.metrics->commands_failed++;
    if (id)
        push_error(session, id, code, text);
}

static void bad_request(struct session *session, const struct command *command, const char *text)
{
    session_error(session, command->id, ERROR_BAD_REQUEST, slice_text(text));
}

/* ---- pushes ---- */

static size_t outcome_fields(const struct recovery_outcome *outcome)
{
    return outcome ? (outcome->offset.len ? 3 : 1) : 0;
}

static void write_outcome(struct writer *writer, const struct recovery_outcome *outcome)
{
    if (!outcome)
        return;
    writer_pair_bool(writer, "recovered", outcome->recovered);
    if (!outcome->offset.len)
        return;
    writer_pair_str(writer, "epoch", outcome->epoch);
    writer_pair_str(writer, "offset", outcome->offset);
}

static void write_limits(struct writer *writer, const struct config *config)
{
    writer_key(writer, "limits");
    writer_map(writer, 5);
    writer_pair_int(writer, "message", (int64_t)config->max_message);
    writer_pair_int(writer, "name", ADDRESS_NAME_MAX);
    writer_pair_int(writer, "subscriptions", (int64_t)config->subscriptions_limit);
    writer_pair_int(writer, "requests", (int64_t)config->requests_limit);
    writer_pair_int(writer, "timeout", (int64_t)config->request_timeout);
    writer_end(writer);
}

void session_push_hello(struct session *session, const struct recovery_outcome *outcome)
{
    const struct config *config = session->config;
    struct writer writer;
    struct address address;
    struct slice text;
    bool addressed = session_route_address(session, &address, &text);

    session_frame_begin(session, &writer);
    writer_map(&writer, 9u + addressed + outcome_fields(outcome));
    writer_pair_str(&writer, "push", slice_text("hello"));
    writer_pair_str(&writer, "session", session_name(session));
    writer_pair_str(&writer, "conn", session_conn(session));
    if (addressed)
        writer_pair_str(&writer, "address", text);
    writer_pair_str(&writer, "instance", slice_text(session->sessions->options.instance));
    writer_pair_str(&writer, "version", slice_text(SWITCHBOARD_VERSION));
    writer_pair_int(&writer, "time", (int64_t)clock_wall_ms());
    writer_pair_int(&writer, "ping_interval", (int64_t)config->ping_interval);
    writer_pair_int(&writer, "ping_timeout", (int64_t)config->ping_timeout);
    write_limits(&writer, config);
    write_outcome(&writer, outcome);
    writer_end(&writer);
    session_frame_end(session, &writer);
}

void session_push_recovered(struct session *session, const struct feed *feed,
                            const struct recovery_outcome *outcome)
{
    struct writer writer;
    char address[ADDRESS_MAX + 1];

    session_frame_begin(session, &writer);
    writer_map(&writer, 2 + outcome_fields(outcome));
    writer_pair_str(&writer, "push", slice_text("recovered"));
    writer_pair_str(&writer, "address", feed_address(feed, address));
    write_outcome(&writer, outcome);
    writer_end(&writer);
    session_frame_end(session, &writer);
}

void session_push_disconnect(struct session *session, int code)
{
    const struct error_info *info = error_find(code);
    bool listed = info->code == code, reason = session->extra && session->extra->close_reason[0];
    uint64_t delay = session->config->drain_delay;
    bool delayed = code == CLOSE_RESTART && delay > 0;
    struct writer writer;

    if (!listed) /* an operator's own code */
        info = error_find(CLOSE_KICKED);
    session_frame_begin(session, &writer);
    writer_map(&writer, 5u + delayed);
    writer_pair_str(&writer, "push", slice_text("disconnect"));
    writer_pair_int(&writer, "code", code);
    writer_pair_str(&writer, "name", slice_text(info->name));
    writer_pair_str(&writer, "text", reason ? session_close_reason(session) : slice_text(info->text));
    writer_pair_bool(&writer, "reconnect", listed ? info->retry : code >= 4000 && code < 4500);
    /* Spread, so that the clients of a broker that restarts don't all come at once; it need not be unpredictable. */
    if (delayed)
        writer_pair_int(&writer, "delay", (int64_t)((uint64_t)random() % delay));
    writer_end(&writer);
    session_frame_end(session, &writer);
}

void session_subscribed(struct session *session, const struct subscription *subscription,
                        const struct recovery_outcome *outcome)
{
    struct writer writer;

    if (!session_ok_begin(session, &writer, subscription->command, 1 + outcome_fields(outcome)))
        return;
    writer_pair_str(&writer, "topic", slice_from(subscription->topic, subscription->topic_len));
    write_outcome(&writer, outcome);
    session_ok_end(session, &writer);
}

/* ---- send, publish ---- */

static void on_sent(struct storage_request *request, int error, const struct storage_result *result)
{
    struct session_op *op = container_of(request, struct session_op, request);
    struct session *session = op->session;
    struct metrics *metrics = session->sessions->options.metrics;
    struct writer writer;
    bool stored = result->offset.len > 0;
    char words[STORAGE_WORDS_MAX];

    if (error) {
        metrics->publish_failed++;
        metrics->stored_refused += (error == ERROR_LIMIT || error == ERROR_TOO_LARGE) && result->why.len;
        session_error(session, op->command, error, storage_words(error, result, words));
    } else {
        const char *receipt = result->number > 0 ? "delivered" : stored ? "stored" : "absent";
        metrics->published_absent += result->number == 0;
        if (session_ok_begin(session, &writer, op->command, stored ? 3 : 1)) {
            writer_pair_str(&writer, "receipt", slice_text(receipt));
            if (stored) {
                writer_pair_str(&writer, "offset", result->offset);
                writer_pair_str(&writer, "epoch", result->epoch);
            }
            session_ok_end(session, &writer);
        }
    }
    session_inflight_end(session, op->cost, op->bytes);
    session_op_free(op);
}

/* Who it is to the storage: whoever comes back as the same user, or under the same name. */
static struct slice sender_of(struct session *session, char out[static ADDRESS_MAX + 1])
{
    struct storage_session view = session_storage_view(session);
    struct address sender = {.kind = ADDRESS_USER, .name = view.user};

    if (!view.user.len)
        sender = (struct address){.kind = ADDRESS_SESSION, .name = view.name};
    return slice_from(out, address_format(&sender, out));
}

/* Counts the key, if the message has one; answers when it may have none. */
static bool take_key(struct session *session, const struct command *command)
{
    struct session_extra *extra;
    const char *refused;

    if (!command->key.len)
        return true;
    extra = session_extra(session);
    if (!extra) {
        session_error(session, command->id, ERROR_NO_MEMORY, slice_from(NULL, 0));
        return false;
    }
    refused = keys_take(session->sessions->options.keys, &extra->keys);
    if (refused)
        session_error(session, command->id, ERROR_LIMIT, slice_text(refused));
    return !refused;
}

static void send_message(struct session *session, const struct command *command, const struct address *to)
{
    static const struct storage_result nothing;
    struct router *router = session->sessions->options.router;
    char from[ADDRESS_MAX + 1], text[ADDRESS_MAX + 1], sender[ADDRESS_MAX + 1], channel[CHANNEL_MAX];

    if (!take_key(session, command))
        return;
    struct session_op *op = session_op_create(session);
    if (!op) {
        session_error(session, command->id, ERROR_NO_MEMORY, slice_from(NULL, 0));
        return;
    }
    op->request.on_done = on_sent;
    op->command = command->id;
    op->bytes = command->payload.len;
    op->cost = command->store || command->key.len ? SCRIPT_COST : 1;
    session_inflight_begin(session, op->cost, op->bytes);
    struct message_fields fields = {
        .kind = MESSAGE_DATA,
        .content = command->content,
        .time_ms = clock_wall_ms(),
        .from = slice_from(from, session_address(session, from)),
        .to = slice_from(text, address_format(to, text)),
        .payload = command->payload,
    };
    struct router_extras extras = {
        .store = command->store, .ttl_ms = (uint64_t)command->ttl, .key = command->key};
    struct slice at = slice_from(channel, address_channel(to, channel));
    bool plain = !extras.store && !extras.key.len;
    if (!plain)
        extras.sender = sender_of(session, sender);
    if (!(plain ? router_publish(router, at, &fields, &op->request)
                : router_publish_with(router, at, &fields, &extras, &op->request)))
        on_sent(&op->request, ERROR_NO_MEMORY, &nothing);
}

bool session_read_address(struct session *session, const struct command *command, const char *field,
                          struct slice value, struct address *address)
{
    const char *wrong = address_parse(value, address);
    char text[160];

    if (!wrong && address->kind == ADDRESS_TOPIC && topic_is_pattern(address->name))
        wrong = "a pattern can only be subscribed to";
    if (!wrong)
        return true;
    snprintf(text, sizeof text, "\"%s\": %s", field, wrong);
    bad_request(session, command, text);
    return false;
}

static bool check_sending(struct session *session, const struct command *command)
{
    if (command->present & FIELD_TTL && (command->ttl < 1 || !command->store))
        bad_request(session, command, "\"ttl\" must be at least 1, and goes with \"store\"");
    else if (command->present & FIELD_KEY && (!command->key.len || command->key.len > STORAGE_KEY_MAX))
        bad_request(session, command, "\"key\" must be 1 to 64 bytes");
    else
        return true;
    return false;
}

static void handle_send(struct session *session, const struct command *command)
{
    struct address to;

    if (check_sending(session, command) && session_read_address(session, command, "to", command->to, &to))
        send_message(session, command, &to);
}

static void handle_publish(struct session *session, const struct command *command)
{
    struct address to = {.kind = ADDRESS_TOPIC, .name = command->topic};
    const char *wrong = address_check_name(command->topic);
    char text[160];

    if (!wrong && topic_is_pattern(command->topic))
        wrong = "a pattern can only be subscribed to";
    if (!wrong) {
        if (check_sending(session, command))
            send_message(session, command, &to);
        return;
    }
    snprintf(text, sizeof text, "\"topic\": %s", wrong);
    bad_request(session, command, text);
}

/* ---- request, reply ---- */

static void handle_request(struct session *session, const struct command *command)
{
    struct address to;

    if (!session_read_address(session, command, "to", command->to, &to))
        return;
    if (to.kind == ADDRESS_TOPIC)
        bad_request(session, command, "\"to\": only a session or a user can be asked");
    else
        session_ask(session, command, &to);
}

/* ---- ping ---- */

static void handle_ping(struct session *session, const struct command *command)
{
    struct writer writer;

    if (!session_ok_begin(session, &writer, command->id, 1))
        return;
    writer_pair_int(&writer, "time", (int64_t)clock_wall_ms());
    session_ok_end(session, &writer);
}

/* ---- the table ---- */

static const struct {
    const char *name;
    unsigned required; /* FIELD_… */
    void (*handle)(struct session *session, const struct command *command);
} commands[] = {
    {"send", FIELD_TO, handle_send},
    {"publish", FIELD_TOPIC, handle_publish},
    {"request", FIELD_TO, handle_request},
    {"reply", FIELD_REQUEST, session_reply},
    {"subscribe", FIELD_TOPIC, session_subscribe},
    {"unsubscribe", FIELD_TOPIC, session_unsubscribe},
    {"history", FIELD_ADDRESS, session_read_history},
    {"presence", FIELD_ADDRESS, session_read_presence},
    {"online", 0, session_read_online},
    {"ping", 0, handle_ping},
};

static const struct {
    unsigned field;
    const char *text;
} missing_texts[] = {
    {FIELD_TO, "\"to\" is missing"},
    {FIELD_TOPIC, "\"topic\" is missing"},
    {FIELD_REQUEST, "\"request\" is missing"},
    {FIELD_ADDRESS, "\"address\" is missing"},
};

static void dispatch(struct session *session, const struct command *command)
{
    session->sessions->options.metrics->commands++;
    if (command->too_large) {
        session->sessions->options.metrics->messages_too_big++;
        session_error(session, command->id, ERROR_TOO_LARGE,
                      slice_text("the payload is too large in JSON or MessagePack"));
        return;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (!slice_is(command->cmd, commands[i].name))
            continue;
        unsigned missing = commands[i].required & ~command->present;
        for (size_t j = 0; missing && j < sizeof missing_texts / sizeof *missing_texts; j++) {
            if (missing & missing_texts[j].field) {
                bad_request(session, command, missing_texts[j].text);
                return;
            }
        }
        commands[i].handle(session, command);
        return;
    }
    session_error(session, command->id, ERROR_UNKNOWN_COMMAND, slice_from(NULL, 0));
}

size_t session_receive_frames(struct session *session, enum message_content content, struct slice payload)
{
    enum message_content wanted = session->face == FACE_JSON ? CONTENT_TEXT : CONTENT_BINARY;
    struct command_reader reader;
    struct command command;
    enum command_status status = COMMAND_READ;
    const char *from;

    if (content != wanted) {
        session_refuse_frame(session, session->face == FACE_JSON
                                          ? "JSON frames go in text messages"
                                          : "MessagePack frames go in binary messages");
        return payload.len;
    }
    command_reader_init(&reader, (enum face)session->face, payload);
    reader.limit = router_max_payload(session->sessions->options.router);
    from = reader.at;
    while (session_has_turn(session) && status != COMMAND_END && status != COMMAND_FATAL) {
        status = command_read(&reader, &command);
        session_charge_turn(session, (size_t)(reader.at - from));
        from = reader.at;
        if (status == COMMAND_READ)
            dispatch(session, &command);
        else if (status == COMMAND_BAD)
            push_error(session, command.id, ERROR_BAD_REQUEST, slice_text(reader.problem));
        else if (status == COMMAND_FATAL)
            session_refuse_frame(session, reader.problem);
    }
    size_t rest = status == COMMAND_END ? 0 : (size_t)(reader.end - reader.at);
    command_reader_close(&reader);
    return payload.len - rest;
}

/* ---- orders ---- */

void session_order(struct session *session, const struct message *message)
{
    struct slice payload = message->fields.payload;
    json_t *order = json_loadb(payload.data, payload.len, 0, NULL);
    const char *action = json_string_value(json_object_get(order, "do"));
    const json_t *code = json_object_get(order, "code");
    const char *reason = json_string_value(json_object_get(order, "reason"));
    uint64_t left_out;
    json_int_t wanted = json_is_integer(code) ? json_integer_value(code) : CLOSE_KICKED;

    if (action && strcmp(action, "kick") == 0 &&
        (wanted == CLOSE_NORMAL || (wanted >= 3000 && wanted <= 4999))) {
        session_set_close_reason(session, reason);
        session_end(session, (int)wanted);
    } else if (session_may_log(session, &left_out)) {
        log_warn(
            "order ignored", log_slice("session", session_name(session)),
            log_str("reason", action ? "unknown, or with a close code that is not allowed" : "malformed"),
            log_int("left_out", (int64_t)left_out));
    }
    json_decref(order);
}
