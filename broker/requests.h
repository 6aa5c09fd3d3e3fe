/* Requests that this process asked over the bus, for a session or for an HTTP caller, and waits for.
 *
 * A request goes to an address as a MESSAGE_REQUEST. The answer (MESSAGE_REPLY, _REFUSED or _GONE, with the request's id as
 * correlation) comes back to the `from` address: the asking session's channel, or this instance's own for HTTP callers. */
#ifndef BROKER_REQUESTS_H
#define BROKER_REQUESTS_H

#include "base/list.h"
#include "proto/address.h"
#include "proto/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct metrics;
struct request;
struct requests;
struct router;
struct storage;

struct requests_options {
    struct loop *loop;
    struct storage *storage;
    struct router *router;
    struct metrics *metrics;
    uint64_t check_ms;   /* how often the registry is asked whether a target is still there; 0: never */
    size_t checks_limit; /* so often a second at most, for all targets; 0: as often as wanted */
};

/* NULL when memory is short. */
struct requests *requests_create(const struct requests_options *options);

/* After the storage was destroyed: what is open is forgotten, without callbacks. NULL is allowed. */
void requests_destroy(struct requests *requests);

void requests_set_checks(struct requests *requests, size_t limit);

struct request_question {
    struct slice id;   /* unique for ever, at most CORRELATION_MAX bytes */
    struct slice from; /* where the answer goes */
    struct address to; /* a session or a user */
    enum message_content content;
    struct slice payload;
    uint64_t timeout_ms;

    /* `error` is 0 or from proto/errors.h; `answer` is the reply, or with ERROR_REFUSED the refusal (its payload says why), otherwise
     * NULL; borrowed. Called exactly once, never from inside request_ask(), and not after request_cancel(). */
    void (*on_done)(void *data, int error, const struct message_fields *answer);
    void *data;
};

/* Sends the question (copied) and waits: on_done comes with the answer; with ERROR_ABSENT as soon as it is known that nobody is
 * there; ERROR_GONE when all that were asked left; ERROR_TIMEOUT; ERROR_UNAVAILABLE. The handle is good until then. NULL when
 * memory is short. */
struct request *request_ask(struct requests *requests, const struct request_question *question);

/* The one who asked no longer waits; those asked are told. */
void request_cancel(struct request *request);

/* A MESSAGE_REPLY, _REFUSED or _GONE arrived for somebody here. */
void requests_on_answer(struct requests *requests, const struct message_fields *answer);

/* A MESSAGE_REPLY arrived for somebody who doesn't wait any more: back to its sender with it, if it wants that. */
void requests_return_answer(struct requests *requests, const struct message_fields *answer);

size_t requests_open(const struct requests *requests);

#endif
