/* A batch: one command a line, answered by one line each, in the same order.
 *
 * The commands are read and started in order, up to API_BATCH_INFLIGHT_MAX at a time, and each writes its answer into its line.
 * When the last is done, the lines are the response. What stops it early (memory, the end of the broker) is answered with a
 * problem that says how many were started; when the client leaves, what it asked is cancelled and nothing more is started. */
#include "broker/api_internal.h"

#include "base/alloc.h"
#include "broker/router.h"
#include "proto/command.h"
#include "proto/payload.h"
#include "proto/topic.h"

#include <stdio.h>
#include <string.h>

enum { OUTPUT_MAX = 64 << 20 };

struct batch {
    struct call call;
    struct list lines; /* all that were begun, in order */
    struct slice rest; /* of the body; empty when nothing more is to be started */
    size_t started, inflight, output;
    int failed; /* an error that ended it */
};

struct line {
    struct storage_request request;
    struct list link; /* in batch->lines */
    struct batch *batch;
    struct request *asked; /* NULL: none is open */
    bool has_id;
    int64_t id;
    struct buffer json; /* its answer */
};

static void batch_go_on(struct batch *batch);

static void batch_free(struct batch *batch)
{
    for (struct list *link; (link = list_pop(&batch->lines));) {
        struct line *line = container_of(link, struct line, link);
        buffer_close(&line->json);
        mem_free(line);
    }
}

static void stop(struct batch *batch, int error)
{
    if (!batch->failed)
        batch->failed = error;
    batch->rest.len = 0;
}

/* ---- answers ---- */

static void answer_begin(struct line *line, struct writer *writer, const char *key)
{
    writer_begin(writer, FACE_JSON, &line->json);
    writer_map(writer, 1u + line->has_id);
    if (line->has_id)
        writer_pair_int(writer, "id", line->id);
    writer_key(writer, key);
}

/* The line is complete; whoever calls this goes on with the batch. */
static void answer_end(struct line *line, struct writer *writer)
{
    struct batch *batch = line->batch;

    writer_end(writer);
    buffer_append_text(&line->json, "\n");
    batch->output += line->json.len;
    if (line->json.failed)
        stop(batch, ERROR_NO_MEMORY);
}

static void answer_error(struct line *line, int error, struct slice text)
{
    const struct error_info *info = error_find(error);
    struct writer writer;

    answer_begin(line, &writer, "error");
    writer_map(&writer, 4);
    writer_pair_int(&writer, "code", info->code);
    writer_pair_str(&writer, "name", slice_text(info->name));
    api_write_text(&writer, "text", text.len ? text : slice_text(info->text));
    writer_pair_bool(&writer, "retry", info->retry);
    writer_end(&writer);
    answer_end(line, &writer);
}

static void refuse(struct line *line, const char *text)
{
    answer_error(line, ERROR_BAD_REQUEST, slice_text(text));
}

static void on_sent(struct storage_request *request, int error, const struct storage_result *result)
{
    struct line *line = container_of(request, struct line, request);
    struct batch *batch = line->batch;
    struct writer writer;
    char words[STORAGE_WORDS_MAX];

    if (error) {
        api_write_receipt(batch->call.api, error, result, NULL);
        answer_error(line, error, storage_words(error, result, words));
    } else {
        answer_begin(line, &writer, "ok");
        api_write_receipt(batch->call.api, error, result, &writer);
        answer_end(line, &writer);
    }
    if (error == ERROR_CANCELLED)
        stop(batch, ERROR_UNAVAILABLE);
    batch->inflight--;
    batch_go_on(batch);
}

static void on_answer(void *data, int error, const struct message_fields *answer)
{
    struct line *line = data;
    struct batch *batch = line->batch;
    struct address from;
    struct writer writer;

    line->asked = NULL;
    if (!error && batch->output + payload_largest(answer->content, answer->payload) > OUTPUT_MAX)
        error = ERROR_TOO_LARGE;
    if (error) {
        bool refused = error == ERROR_REFUSED && answer;
        answer_error(line, error, refused ? answer->payload : slice_from(NULL, 0));
    } else {
        bool named = !address_parse(answer->from, &from);
        answer_begin(line, &writer, "ok");
        writer_map(&writer, 1u + named);
        if (named)
            writer_pair_str(&writer, "from", answer->from);
        writer_payload(&writer, answer->content, answer->payload);
        writer_end(&writer);
        answer_end(line, &writer);
    }
    if (error == ERROR_CANCELLED)
        stop(batch, ERROR_UNAVAILABLE);
    batch->inflight--;
    batch_go_on(batch);
}

/* ---- commands ---- */

static const char *read_target(const struct command *command, struct address *to)
{
    const char *wrong = NULL;

    if (slice_is(command->cmd, "publish")) {
        *to = (struct address){.kind = ADDRESS_TOPIC, .name = command->topic};
        if (!(command->present & FIELD_TOPIC))
            return "\"topic\" is missing";
        wrong = address_check_name(command->topic);
    } else if (!(command->present & FIELD_TO)) {
        return "\"to\" is missing";
    } else {
        wrong = address_parse(command->to, to);
    }
    if (!wrong && to->kind == ADDRESS_TOPIC && topic_is_pattern(to->name))
        wrong = "a pattern can only be subscribed to";
    if (!wrong && to->kind == ADDRESS_TOPIC && slice_is(command->cmd, "request"))
        wrong = "only a session or a user can be asked";
    return wrong;
}

static void run_send(struct line *line, const struct command *command, struct api_sending *sending)
{
    struct batch *batch = line->batch;

    if (command->present & FIELD_TTL && command->ttl < 1) {
        refuse(line, "\"ttl\" must be at least 1");
        return;
    }
    if (command->present & FIELD_KEY && !command->key.len) {
        refuse(line, "\"key\" must be 1 to 64 bytes");
        return;
    }
    sending->store = command->store;
    sending->ttl_ms = (uint64_t)command->ttl;
    sending->key = command->key;
    const char *wrong = api_check_sending(sending);
    if (wrong) {
        refuse(line, wrong);
        return;
    }
    const char *too_many = api_take_key(batch->call.api, sending);
    if (too_many) {
        answer_error(line, ERROR_LIMIT, slice_text(too_many));
        return;
    }
    line->request.on_done = on_sent;
    if (api_send(batch->call.api, sending, &line->request))
        batch->inflight++;
    else
        answer_error(line, ERROR_NO_MEMORY, slice_from(NULL, 0));
}

static void run_request(struct line *line, const struct command *command, struct api_sending *sending)
{
    struct batch *batch = line->batch;
    uint64_t longest = batch->call.api->config->request_timeout;
    char text[96];

    sending->timeout_ms = longest < API_TIMEOUT_DEFAULT_MS ? longest : API_TIMEOUT_DEFAULT_MS;
    if (command->present & FIELD_TIMEOUT)
        sending->timeout_ms = (uint64_t)command->timeout;
    if (command->timeout < 0 || !sending->timeout_ms || sending->timeout_ms > longest) {
        snprintf(text, sizeof text, "\"timeout\" must be from 1 to %llu", (unsigned long long)longest);
        refuse(line, text);
        return;
    }
    line->asked = api_ask(batch->call.api, sending, on_answer, line);
    if (line->asked)
        batch->inflight++;
    else
        answer_error(line, ERROR_NO_MEMORY, slice_from(NULL, 0));
}

static void run(struct line *line, const struct command *command)
{
    struct api_sending sending = {.content = command->content, .payload = command->payload};
    bool asks = slice_is(command->cmd, "request");

    if (!asks && !slice_is(command->cmd, "send") && !slice_is(command->cmd, "publish")) {
        answer_error(line, ERROR_UNKNOWN_COMMAND, slice_text("a batch knows send, publish and request"));
        return;
    }
    const char *wrong = read_target(command, &sending.to);
    if (wrong)
        refuse(line, wrong);
    else if (command->too_large || command->payload.len > line->batch->call.api->config->max_message)
        answer_error(line, ERROR_TOO_LARGE, slice_from(NULL, 0));
    else if (asks)
        run_request(line, command, &sending);
    else
        run_send(line, command, &sending);
}

static bool only_space(const char *at, const char *end)
{
    while (at < end && strchr(" \t\r", *at))
        at++;
    return at == end;
}

static void run_line(struct line *line, struct slice text)
{
    struct command_reader reader;
    struct command command;

    command_reader_init(&reader, FACE_JSON, text);
    reader.limit = router_max_payload(line->batch->call.api->options.router);
    enum command_status status = command_read(&reader, &command);
    line->has_id = command.present & FIELD_ID && command.id > 0;
    line->id = command.id;
    if (status != COMMAND_READ)
        refuse(line, reader.problem);
    else if (!only_space(reader.at, reader.end))
        refuse(line, "one command a line");
    else
        run(line, &command);
    command_reader_close(&reader);
}

/* ---- the batch ---- */

/* Takes the next line off `rest`, without its newline. */
static struct slice next_line(struct slice *rest)
{
    const char *end = memchr(rest->data, '\n', rest->len);
    size_t len = end ? (size_t)(end - rest->data) : rest->len, used = len + (end != NULL);
    struct slice line = slice_from(rest->data, len);

    *rest = slice_from(rest->data + used, rest->len - used);
    return line;
}

static void start_line(struct batch *batch)
{
    struct slice text = next_line(&batch->rest);

    if (only_space(text.data, text.data + text.len))
        return;
    struct line *line = mem_calloc(1, sizeof *line);
    if (!line) {
        stop(batch, ERROR_NO_MEMORY);
        return;
    }
    line->batch = batch;
    buffer_init(&line->json, 0);
    list_append(&batch->lines, &line->link);
    batch->started++;
    run_line(line, text);
}

static void reply(struct batch *batch)
{
    struct api *api = batch->call.api;
    struct buffer all;
    char detail[96];

    buffer_init(&all, 0);
    if (!batch->failed && !buffer_reserve(&all, batch->output))
        batch->failed = ERROR_NO_MEMORY;
    list_for_each (link, &batch->lines) {
        struct line *line = container_of(link, struct line, link);
        if (!batch->failed && !buffer_append(&all, line->json.data, line->json.len))
            batch->failed = ERROR_NO_MEMORY;
    }
    int failed = batch->failed;
    snprintf(detail, sizeof detail, "%s; of the batch, %zu commands were started", error_find(failed)->text,
             batch->started);
    batch_free(batch);
    struct api_http *http = api_call_finish(&batch->call);
    if (http && failed)
        api_reply_error(api, http, failed, detail);
    else if (http)
        api_reply_buffer(api, http, 200, "application/x-ndjson", &all);
    buffer_close(&all);
}

/* Starts what may be started; answers when everything is done. Called from no callback that still needs the batch. */
static void batch_go_on(struct batch *batch)
{
    while (batch->rest.len && batch->inflight < API_BATCH_INFLIGHT_MAX)
        start_line(batch);
    if (!batch->inflight)
        reply(batch);
}

static void on_client_gone(struct call *call)
{
    struct batch *batch = container_of(call, struct batch, call);

    batch->rest.len = 0;
    list_for_each (link, &batch->lines) {
        struct line *line = container_of(link, struct line, link);
        if (!line->asked)
            continue;
        api_cancel(call->api, line->asked);
        line->asked = NULL;
        batch->inflight--;
    }
    if (!batch->inflight)
        reply(batch);
}

void api_serve_batch(struct api *api, const struct api_input *input)
{
    struct slice body = api_http_body(input->http);
    size_t lines = 1;
    char text[64];

    for (size_t i = 0; i + 1 < body.len; i++)
        lines += body.data[i] == '\n';
    if (lines > API_BATCH_LINES_MAX) {
        snprintf(text, sizeof text, "a batch has at most %d lines", API_BATCH_LINES_MAX);
        api_reply_error(api, input->http, ERROR_TOO_LARGE, text);
        return;
    }
    struct batch *batch = api_call_create(api, input->http, sizeof *batch, NULL);
    if (!batch)
        return;
    list_init(&batch->lines);
    batch->rest = body;
    api_call_watch(&batch->call, on_client_gone);
    batch_go_on(batch);
}
