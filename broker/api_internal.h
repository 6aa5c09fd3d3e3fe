/* What the parts of the API share: the listener, the call that waits, the answers, and the handler of each endpoint. */
#ifndef BROKER_API_INTERNAL_H
#define BROKER_API_INTERNAL_H

#include "base/buffer.h"
#include "base/list.h"
#include "broker/api.h"
#include "broker/api_http.h"
#include "broker/api_parse.h"
#include "broker/config.h"
#include "broker/reads.h"
#include "proto/errors.h"
#include "proto/writer.h"
#include "storage/storage.h"

struct command;
struct request;

struct api {
    struct api_options options;
    struct config *config; /* a reference; the newest */
    char *token;           /* owned; NULL: none is asked for */
    struct api_server *server;
    size_t call_count;           /* that wait, up to api_limit */
    struct list probing;         /* who asked whether this instance is ready */
    struct storage_request probe; /* one for all of them; open while there are any */
    bool probe_open;
    uint64_t request_count; /* for their ids */
    struct reader reader;   /* of what callers read: they share the turns of one reader */
    bool draining, closing;
};

/* ---- one request ---- */

/* What a handler is given; lives until it returns. */
struct api_input {
    struct api_http *http;
    struct slice param; /* of the path, decoded; NUL-terminated */
    const struct api_query *query;
};

/* Answers, or makes a call that will. */
typedef void api_serve(struct api *api, const struct api_input *input);

api_serve api_serve_healthz, api_serve_readyz, api_serve_stats, api_serve_metrics;
api_serve api_serve_send, api_serve_publish, api_serve_request, api_serve_batch;
api_serve api_serve_sessions, api_serve_session, api_serve_kick, api_serve_user;
api_serve api_serve_topics, api_serve_presence, api_serve_topic_history, api_serve_history;
api_serve api_serve_instances, api_serve_drain;

/* Judges a request by its head, finds its endpoint and serves it; `data` is the api. */
extern const struct api_server_ops api_dispatch_ops;

/* ---- reading (api_input.c); false: what is wrong was answered ---- */

/* The path's parameter as an address, or as the name in one of that kind. Patterns are refused. */
bool api_input_address(struct api *api, const struct api_input *input, struct address *address);
bool api_input_name(struct api *api, const struct api_input *input, enum address_kind kind,
                    struct address *address);

/* Parameters of the query; what isn't there leaves the value as it is. */
bool api_input_number(struct api *api, const struct api_input *input, const char *name, uint64_t min,
                      uint64_t max, uint64_t *value);
bool api_input_duration(struct api *api, const struct api_input *input, const char *name, uint64_t min,
                        uint64_t max, uint64_t *value);
bool api_input_bool(struct api *api, const struct api_input *input, const char *name, bool *value);

/* The body as a payload; needs api_payload_close(). */
bool api_input_payload(struct api *api, const struct api_input *input, struct api_payload *payload);

/* ---- answering (api_reply.c) ---- */

void api_reply(struct api *api, struct api_http *http, int status, const char *type, struct slice body);
void api_reply_buffer(struct api *api, struct api_http *http, int status, const char *type,
                      struct buffer *body); /* takes what it holds */
void api_reply_text(struct api *api, struct api_http *http, int status, const char *text);

/* `json` without its last newline; an answer that failed for want of memory is 507. Closes the buffer. */
void api_reply_json(struct api *api, struct api_http *http, int status, struct buffer *json);

/* Problem details, RFC 9457. `error` is from proto/errors.h; without `detail` its own text. */
void api_reply_error(struct api *api, struct api_http *http, int error, const char *detail);
void api_reply_problem(struct api *api, struct api_http *http, int status, const char *name, bool retry,
                       const char *detail);

/* Writes the key and a text that may not be UTF-8, as User-Agents may. */
void api_write_text(struct writer *writer, const char *key, struct slice text);

/* ---- records of the registry (api_records.c) ---- */

struct api_shown_field {
    const char *name; /* as in the registry */
    bool number;
};

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* Empty when the record has no such field. */
struct slice api_record_field(const struct storage_record *record, const char *name);

/* Writes one record as a map: its key under the name `key`, then those of the fields that it has. */
void api_write_record(struct writer *writer, const struct storage_record *record, const char *key,
                      const struct api_shown_field *fields, size_t count);
void api_write_session(struct writer *writer, const struct storage_record *record);

/* Writes the key `name` and an array of records. */
void api_write_records(struct writer *writer, const char *name, const struct storage_record *records,
                       size_t record_count, const char *key, const struct api_shown_field *fields,
                       size_t count);

/* ---- requests that wait (api_call.c) ---- */

struct call {
    struct storage_request request; /* for whoever needs one */
    struct api *api;
    struct api_http *http; /* NULL: the client has left, and took it along */
    bool counted;          /* in api->call_count */

    /* The client has left, or the API ends: api_cancel() what can be, api_call_finish() if nothing will call
     * back. NULL: what is under way ends soon by itself. */
    void (*on_gone)(struct call *call);

    struct read read;               /* see api_call_read() */
    void (*ask)(struct call *call); /* NULL: it reads nothing large */
};

/* Allocates `size` zeroed bytes that begin with a call; NULL when memory is short or too many wait (answered). */
void *api_call_create(struct api *api, struct api_http *http, size_t size,
                      void (*on_done)(struct storage_request *, int, const struct storage_result *));

/* Calls `ask`, which asks the storage with call->request, when it is the call's turn to read (reads.h). */
void api_call_read(struct call *call, void (*ask)(struct call *call));

/* The same for what may never be too many: there is at most one for each connection. */
void *api_call_create_always(struct api *api, struct api_http *http, size_t size,
                             void (*on_done)(struct storage_request *, int, const struct storage_result *));

/* Tells at once when the client leaves, for what may take long. */
void api_call_watch(struct call *call, void (*on_gone)(struct call *call));

/* Ends the wait and frees the call: the request to answer, or NULL when nobody is there any more. */
struct api_http *api_call_finish(struct call *call);

/* ---- messages (api_send.c), from an endpoint of their own or a line of a batch ---- */

struct api_sending {
    struct address to;
    enum message_content content;
    struct slice payload;
    bool store;
    uint64_t ttl_ms;     /* 0: none */
    struct slice key;    /* idempotency key; empty: none */
    uint64_t timeout_ms; /* requests */
};

/* NULL when it can be sent; otherwise a constant text that says what is wrong. */
const char *api_check_sending(const struct api_sending *sending);

/* Counts its key, if it has one. Otherwise a constant text that says which limit is reached: it may not be sent. */
const char *api_take_key(struct api *api, const struct api_sending *sending);

/* False when memory is short: the request doesn't call back. */
bool api_send(struct api *api, const struct api_sending *sending, struct storage_request *request)
    __attribute__((warn_unused_result));

/* Counts what became of it, and writes a map with the receipt; nothing after an error. */
void api_write_receipt(struct api *api, int error, const struct storage_result *result,
                       struct writer *writer);

/* As request_ask(). */
struct request *api_ask(struct api *api, const struct api_sending *sending,
                        void (*on_done)(void *data, int error, const struct message_fields *answer),
                        void *data);

/* As request_cancel(); when the API ends, the requests end with it. */
void api_cancel(struct api *api, struct request *request);

enum { API_TIMEOUT_DEFAULT_MS = 5000 };

enum { API_BATCH_BYTES_MAX = 8 << 20, API_BATCH_LINES_MAX = 10000, API_BATCH_INFLIGHT_MAX = 256 };

#endif
