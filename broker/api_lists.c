/* One session, one user, topics, presence and instances; api_sessions.c lists sessions. */
#include "broker/api_internal.h"

#include <string.h>

enum { LIMIT_MAX = 1000, TOPICS_MAX = 10000 };

/* ---- what is shown of each ---- */

static const struct api_shown_field instance_fields[] = {
    {"host", false},       {"pid", true},      {"listen", false},       {"version", false},
    {"started_at", false}, {"sessions", true}, {"heartbeat_at", false},
};
static const struct api_shown_field member_fields[] = {{"user", false}};
static const struct api_shown_field place_fields[] = {{"instance", false}};
static const struct api_shown_field topic_fields[] = {{"instances", true}};

/* Ends a simple call: NULL when nobody is there any more or the error was answered. */
static struct api_http *finish(struct storage_request *request, int error, struct api **api)
{
    struct call *call = container_of(request, struct call, request);

    *api = call->api;
    struct api_http *http = api_call_finish(call);
    if (http && error) {
        api_reply_error(*api, http, error, NULL);
        return NULL;
    }
    return http;
}

/* ---- one session ---- */

static void on_session_found(struct storage_request *request, int error, const struct storage_result *result)
{
    struct api *api;
    struct api_http *http = finish(request, error, &api);
    struct buffer json;
    struct writer writer;

    if (!http)
        return;
    if (!result->record_count) {
        api_reply_error(api, http, ERROR_ABSENT, "there is no such session");
        return;
    }
    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    api_write_session(&writer, &result->records[0]);
    api_reply_json(api, http, 200, &json);
}

void api_serve_session(struct api *api, const struct api_input *input)
{
    struct address session;

    if (!api_input_name(api, input, ADDRESS_SESSION, &session))
        return;
    struct call *call = api_call_create(api, input->http, sizeof *call, on_session_found);
    if (call)
        storage_find_session(api->options.storage, session.name, &call->request);
}

/* ---- users, topics, presence ---- */

struct named {
    struct call call;
    char name[ADDRESS_NAME_MAX + 1];
    size_t limit;
};

static struct slice name_of(struct call *call)
{
    return slice_text(container_of(call, struct named, call)->name);
}

static void on_user_listed(struct storage_request *request, int error, const struct storage_result *result)
{
    struct named *named = container_of(request, struct named, call.request);
    char uid[ADDRESS_NAME_MAX + 1];
    struct api *api;
    struct buffer json;
    struct writer writer;

    memcpy(uid, named->name, sizeof uid);
    struct api_http *http = finish(request, error, &api);
    if (!http)
        return;
    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    writer_map(&writer, 4);
    writer_pair_str(&writer, "user", slice_text(uid));
    writer_pair_bool(&writer, "online", result->record_count > 0);
    writer_pair_int(&writer, "count", result->number);
    api_write_records(&writer, "sessions", result->records, result->record_count, "session", place_fields,
                      COUNT_OF(place_fields));
    writer_end(&writer);
    api_reply_json(api, http, 200, &json);
}

static void ask_user(struct call *call)
{
    storage_peek_user(call->api->options.storage, name_of(call), LIMIT_MAX, &call->request);
}

void api_serve_user(struct api *api, const struct api_input *input)
{
    struct address user;

    if (!api_input_name(api, input, ADDRESS_USER, &user))
        return;
    struct named *named = api_call_create(api, input->http, sizeof *named, on_user_listed);
    if (!named)
        return;
    memcpy(named->name, user.name.data, user.name.len);
    api_call_read(&named->call, ask_user);
}

static void on_topics_listed(struct storage_request *request, int error, const struct storage_result *result)
{
    struct api *api;
    struct api_http *http = finish(request, error, &api);
    struct buffer json;
    struct writer writer;

    if (!http)
        return;
    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    writer_map(&writer, 2);
    writer_pair_int(&writer, "count", result->number);
    api_write_records(&writer, "topics", result->records, result->record_count, "topic", topic_fields,
                      COUNT_OF(topic_fields));
    writer_end(&writer);
    api_reply_json(api, http, 200, &json);
}

void api_serve_topics(struct api *api, const struct api_input *input)
{
    uint64_t limit = LIMIT_MAX;

    if (!api_input_number(api, input, "limit", 1, TOPICS_MAX, &limit))
        return;
    struct call *call = api_call_create(api, input->http, sizeof *call, on_topics_listed);
    if (call)
        storage_list_topics(api->options.storage, (size_t)limit, &call->request);
}

static void on_presence_listed(struct storage_request *request, int error,
                               const struct storage_result *result)
{
    struct api *api;
    struct api_http *http = finish(request, error, &api);
    struct buffer json;
    struct writer writer;

    if (!http)
        return;
    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    writer_map(&writer, 3);
    writer_pair_bool(&writer, "online", result->number > 0);
    writer_pair_int(&writer, "count", result->number);
    api_write_records(&writer, "sessions", result->records, result->record_count, "session", member_fields,
                      COUNT_OF(member_fields));
    writer_end(&writer);
    api_reply_json(api, http, 200, &json);
}

static void ask_presence(struct call *call)
{
    const struct address topic = {.kind = ADDRESS_TOPIC, .name = name_of(call)};
    char channel[CHANNEL_MAX];

    storage_presence_list(call->api->options.storage, slice_from(channel, address_channel(&topic, channel)),
                          container_of(call, struct named, call)->limit, &call->request);
}

void api_serve_presence(struct api *api, const struct api_input *input)
{
    struct address topic;
    uint64_t limit = LIMIT_MAX;

    if (!api_input_name(api, input, ADDRESS_TOPIC, &topic) ||
        !api_input_number(api, input, "limit", 1, TOPICS_MAX, &limit))
        return;
    struct named *named = api_call_create(api, input->http, sizeof *named, on_presence_listed);
    if (!named)
        return;
    memcpy(named->name, topic.name.data, topic.name.len);
    named->limit = (size_t)limit;
    api_call_read(&named->call, ask_presence);
}

/* ---- instances ---- */

static void on_instances_listed(struct storage_request *request, int error,
                                const struct storage_result *result)
{
    struct api *api;
    struct api_http *http = finish(request, error, &api);
    struct buffer json;
    struct writer writer;

    if (!http)
        return;
    buffer_init(&json, 0);
    writer_begin(&writer, FACE_JSON, &json);
    writer_map(&writer, 1);
    api_write_records(&writer, "instances", result->records, result->record_count, "instance",
                      instance_fields, COUNT_OF(instance_fields));
    writer_end(&writer);
    api_reply_json(api, http, 200, &json);
}

void api_serve_instances(struct api *api, const struct api_input *input)
{
    struct call *call = api_call_create(api, input->http, sizeof *call, on_instances_listed);

    if (call)
        storage_list_instances(api->options.storage, &call->request);
}
