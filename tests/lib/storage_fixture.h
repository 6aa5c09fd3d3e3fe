/* What a storage's caller looks like in tests: peers that write down what they are told, and requests that
 * check how they are answered. */
#ifndef TESTS_LIB_STORAGE_FIXTURE_H
#define TESTS_LIB_STORAGE_FIXTURE_H

#include "storage/storage.h"

struct event_base;

struct seen_message {
    char *pattern; /* that the channel matched; NULL: the channel itself is subscribed */
    char *channel; /* NUL-terminated, as is `bytes`, past its length */
    char *bytes;
    size_t len;
};

/* One instance of the broker. */
struct peer {
    struct event_base *base;
    struct storage *storage;
    struct seen_message *messages; /* in the order received */
    size_t message_count, message_capacity;
    struct seen_message *matches; /* messages of patterns */
    size_t match_count, match_capacity;
    unsigned up_count, down_count, lost_count, reaped_count, stray_count;
    char reaped_instance[64]; /* of the last on_reaped */
    size_t reaped_sessions;
};

/* Takes the storage over and starts it under the id; it isn't up yet. */
void peer_start(struct peer *peer, struct event_base *base, struct storage *storage, const char *id,
                uint32_t heartbeat_ms, uint32_t lease_ms);

/* The same with everything as the instance says. */
void peer_start_as(struct peer *peer, struct event_base *base, struct storage *storage,
                   const struct storage_instance *instance);

void peer_close(struct peer *peer); /* destroys the storage without a word */

/* How many messages of the channel were received; `last`, unless NULL, becomes the last of them. */
size_t peer_count(const struct peer *peer, const char *channel, const struct seen_message **last);

bool seen_is(const struct seen_message *message, const char *channel, const char *bytes);

struct seen_field {
    char *name, *value;
};

struct seen_record {
    char *key;
    struct seen_field *fields;
    size_t field_count;
};

/* One request and how it ended. */
struct call {
    struct storage_request request;
    struct list link;
    unsigned done; /* how often it was called back */
    bool inside;   /* it was called back from inside a call */
    int error;
    int64_t number;
    size_t rank; /* the order in which calls ended */
    char *cursor, *offset, *epoch, *why;
    bool repeated;
    struct seen_record *records;
    size_t record_count;
    void (*then)(struct call *call); /* NULL: nothing more to do in the callback */
    void *data;
};

/* A new call; it lives as long as the list does. */
struct call *call_new(struct list *calls);
void calls_free(struct list *calls);

struct storage_request *call_begin(struct call *call);
void call_end(void);

/* CALL(call, storage_publish, storage, channel, bytes): makes the request and notices an answer given too
 * soon. */
#define CALL(call, function, ...) (function(__VA_ARGS__, call_begin(call)), call_end())

/* The record's value of that name; NULL when there is none. */
const char *seen_value(const struct seen_record *record, const char *field);

/* The record of that key; NULL when there is none. */
const struct seen_record *call_record(const struct call *call, const char *key);

/* A session of some instance, with plausible values for what isn't given. `user` may be NULL. */
struct storage_session make_session(const char *name, const char *conn, const char *user,
                                    uint64_t connected_at_ms);

#endif
