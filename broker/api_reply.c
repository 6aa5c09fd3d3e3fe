#include "broker/api_internal.h"

#include "base/utf8.h"
#include "broker/metrics.h"

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
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
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

/* Whoever reads slowly keeps his answer here, so the large ones are counted; problems are small. */
static bool fits(struct api *api, struct api_http *http, size_t len)
{
    if (api_http_has_room(http, len))
        return true;
    api_reply_error(api, http, ERROR_LIMIT,
                    "bodies and answers take all that there is for them (api_memory)");
    return false;
}

static void answer(struct api *api, struct api_http *http, int status, const char *type, struct buffer *body)
{
    if (status == 429 || status == 503)
        api_http_add_field(http, "Retry-After", "1");
    count(api->options.metrics, status);
    api_http_answer(http, status, phrase_of(status), type, body);
}

void api_reply_buffer(struct api *api, struct api_http *http, int status, const char *type,
                      struct buffer *body)
{
    if (fits(api, http, body->len))
        answer(api, http, status, type, body);
    buffer_close(body);
}

void api_reply(struct api *api, struct api_http *http, int status, const char *type, struct slice body)
{
    struct buffer copy;

    buffer_init(&copy, 0);
    if (!buffer_append(&copy, body.data, body.len)) {
        api_reply_error(api, http, ERROR_NO_MEMORY, NULL);
        return;
    }
    api_reply_buffer(api, http, status, type, &copy);
}

void api_reply_text(struct api *api, struct api_http *http, int status, const char *text)
{
    api_reply(api, http, status, "text/plain; charset=utf-8", slice_text(text));
}

void api_reply_json(struct api *api, struct api_http *http, int status, struct buffer *json)
{
    buffer_append_text(json, "\n");
    if (json->failed)
        api_reply_error(api, http, ERROR_NO_MEMORY, NULL);
    else
        api_reply_buffer(api, http, status, "application/json", json);
    buffer_close(json);
}

void api_reply_problem(struct api *api, struct api_http *http, int status, const char *name, bool retry,
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
    if (json.failed)
        buffer_clear(&json);
    answer(api, http, status, "application/problem+json", &json);
    buffer_close(&json);
}

void api_reply_error(struct api *api, struct api_http *http, int error, const char *detail)
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
