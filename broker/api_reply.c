#include "broker/api_internal.h"

#include "base/utf8.h"
#include "broker/metrics.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *phrase;
} phrases[] = {
    {200, "OK"},
    {202, "Accepted"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {410, "Gone"},
    {413, "Content Too Large"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {500, "Internal Server Error"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {507, "Insufficient Storage"},
};

static const char *phrase_of(int status)
{
    for (size_t i = 0; i < sizeof phrases / sizeof *phrases; i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Other";
}

static void count(struct metrics *metrics, int status)
{
    if (status < 400)
        metrics->api_answered++;
    else if (status < 500)
        metrics->api_refused++;
    else
        metrics->api_failed++;
}

void api_reply(struct api *api, struct evhttp_request *http, int status, const char *type, struct slice body)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(http);

    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Cache-Control", "no-store");
    if (status == 429 || status == 503)
        evhttp_add_header(headers, "Retry-After", "1");
    if (evhttp_request_get_command(http) == EVHTTP_REQ_HEAD) {
        char length[24];
        snprintf(length, sizeof length, "%zu", body.len);
        evhttp_add_header(headers, "Content-Length", length);
    } else {
        evbuffer_add(evhttp_request_get_output_buffer(http), body.data, body.len);
    }
    count(api->options.metrics, status);
    evhttp_send_reply(http, status, phrase_of(status), NULL);
}

void api_reply_text(struct api *api, struct evhttp_request *http, int status, const char *text)
{
    api_reply(api, http, status, "text/plain; charset=utf-8", slice_text(text));
}

void api_reply_json(struct api *api, struct evhttp_request *http, int status, struct buffer *json)
{
    buffer_append_text(json, "\n");
    if (json->failed)
        api_reply_error(api, http, ERROR_NO_MEMORY, NULL);
    else
        api_reply(api, http, status, "application/json", slice_from(json->data, json->len));
    buffer_close(json);
}

void api_reply_problem(struct api *api, struct evhttp_request *http, int status, const char *name, bool retry,
                       const char *detail)
{
    struct buffer json;
    struct writer writer;

    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    writer_map(&writer, 7);
    writer_pair_str(&writer, "type", slice_text("about:blank"));
    writer_pair_str(&writer, "title", slice_text(phrase_of(status)));
    writer_pair_int(&writer, "status", status);
    api_write_text(&writer, "detail", slice_text(detail));
    writer_pair_int(&writer, "code", status);
    writer_pair_str(&writer, "name", slice_text(name));
    writer_pair_bool(&writer, "retry", retry);
    writer_end(&writer);
    buffer_append_text(&json, "\n");
    /* Without memory for the words, the status alone must do. */
    api_reply(api, http, status, "application/problem+json",
              json.failed ? slice_text("{}\n") : slice_from(json.data, json.len));
    buffer_close(&json);
}

void api_reply_error(struct api *api, struct evhttp_request *http, int error, const char *detail)
{
    const struct error_info *info = error_find(error == ERROR_CANCELLED ? ERROR_UNAVAILABLE : error);

    api_reply_problem(api, http, info->code, info->name, info->retry, detail ? detail : info->text);
}

void api_write_text(struct writer *writer, const char *key, struct slice text)
{
    struct buffer valid;

    if (!text.len || utf8_valid(text.data, text.len)) {
        writer_pair_str(writer, key, text);
        return;
    }
    buffer_init(&valid, 0);
    for (size_t at = 0, step; at < text.len; at += step ? step : 1) {
        step = utf8_step(text.data + at, text.len - at);
        if (step)
            buffer_append(&valid, text.data + at, step);
        else
            buffer_append_text(&valid, "\xef\xbf\xbd"); /* U+FFFD */
    }
    writer_pair_str(writer, key, slice_from(valid.data, valid.len));
    buffer_close(&valid);
}
