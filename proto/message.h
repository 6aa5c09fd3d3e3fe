/* One immutable, reference-counted message, as it travels between instances and to every local receiver.
 *
 * It is built once (from a client, the API or an envelope), never changed, and freed with its last reference.
 * The frames that each face makes of it are built on first use and shared by all receivers of that face. */
#ifndef PROTO_MESSAGE_H
#define PROTO_MESSAGE_H

#include "proto/slice.h"

#include <stddef.h>
#include <stdint.h>

struct frame;

enum message_kind {
    MESSAGE_DATA = 0,     /* for the client */
    MESSAGE_TAKEOVER = 1, /* a newer connection holds the name; correlation: its conn */
    MESSAGE_PROBE = 2,    /* an instance's own echo over the bus; correlation: a number */
    MESSAGE_REQUEST = 3,  /* for the client, who answers; correlation: the request's id */
    MESSAGE_REPLY = 4,    /* for the one who asked; correlation: the request's id */
    MESSAGE_CANCEL = 5,   /* the one who asked no longer waits; correlation: the request's id */
    MESSAGE_CONTROL = 6,  /* an operator's order to a session or an instance; payload: JSON, {"do": …} */
    MESSAGE_REFUSED =
        7, /* instead of a reply: the one asked refuses; payload: why; correlation: the request's id */
    MESSAGE_GONE = 8,   /* instead of a reply: the one asked disconnected; correlation: the request's id */
    MESSAGE_JOIN = 9,   /* a session appeared in the topic's presence; payload: its user */
    MESSAGE_LEAVE = 10, /* and disappeared */
    MESSAGE_LATE = 11,  /* a reply that nobody waited for any more, back to the one who gave it; content and
                           payload: the reply's; correlation: the request's id */
    MESSAGE_KIND_COUNT
};

enum message_content {
    CONTENT_TEXT = 0, /* UTF-8 */
    CONTENT_BINARY = 1,
    CONTENT_JSON = 2, /* UTF-8, one JSON value */
    CONTENT_COUNT
};

enum face { FACE_PLAIN, FACE_JSON, FACE_MSGPACK, FACE_COUNT };

const char *face_name(enum face face); /* as the registry and the log show it: plain, json, msgpack */

enum { MESSAGE_ID_MAX = 64, CORRELATION_MAX = 128, OFFSET_MAX = 48, EPOCH_MAX = 31 };

/* What a message says; the slices belong to whoever filled this in. */
struct message_fields {
    enum message_kind kind;
    enum message_content content;
    uint64_t time_ms;         /* wall time at the sender's instance */
    struct slice id;          /* may be empty */
    struct slice from;        /* the sender's address, e.g. session:bob; empty: unknown */
    struct slice to;          /* the address it was sent to */
    struct slice payload;     /* may be empty */
    struct slice correlation; /* may be empty */
    struct slice offset;      /* stored messages: the place in the address's history; otherwise empty */
    struct slice epoch;       /* stored messages: the history's life; otherwise empty */
    uint64_t timeout_ms; /* requests: how long the one who asked waits; replies: not 0 when one that comes too
                                 late is to be sent back, a MESSAGE_LATE */
};

struct message {
    unsigned refs;
    unsigned held; /* how many hold it back for later: its memory is charged once, by the first of them */
    struct message_fields fields;     /* slices point into `bytes` */
    struct frame *frames[FACE_COUNT]; /* owned; NULL until a receiver of that face needs one */
    size_t len;
    char bytes[];
};

/* Copies all of `fields` into a new message with one reference. NULL when memory is short. */
struct message *message_create(const struct message_fields *fields);

struct message *message_ref(struct message *message);
void message_unref(struct message *message); /* NULL is allowed */

#endif
