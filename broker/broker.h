/* One broker process: everything that a configuration makes, wired together, from start to drained. */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

struct broker;
struct config;
struct loop;

/* The payload of a MESSAGE_CONTROL to an instance that makes it drain and end. */
#define ORDER_DRAIN "{\"do\":\"drain\"}"

/* Builds all parts and starts listening; the storage connects once the loop runs. Takes a reference to
 * `config`. With several workers, `worker` is this one's number from 0: it is added to a configured instance id (ID-1, ID-2 …)
 * and to the API's port. NULL on failure (logged). */
struct broker *broker_create(struct loop *loop, struct config *config, unsigned worker);
void broker_destroy(struct broker *broker); /* NULL is allowed */

/* Turns /readyz red, stops listening, closes every client with 1012 spread over drain_time, unregisters them,
 * gives up the lease and then stops the loop. Idempotent. */
void broker_drain(struct broker *broker);

/* Reads the configuration again (SIGHUP). */
void broker_reload(struct broker *broker);

#endif
