/* A storage whose every answer the test gives: in any order, with any result, whenever it likes.
 *
 * Requests are written down and stay open until answered. Its memory comes from malloc, so it is out of reach
 * of alloc_fixture.h. */
#ifndef TESTS_LIB_FAKE_STORAGE_H
#define TESTS_LIB_FAKE_STORAGE_H

#include "proto/address.h"
#include "proto/message.h"
#include "storage/storage.h"

enum fake_kind {
    FAKE_LEAVE,
    FAKE_SUBSCRIBE,
    FAKE_PUBLISH,
    FAKE_PROBE,
    FAKE_REGISTER,
    FAKE_UNREGISTER,
    FAKE_COUNT,
    FAKE_LIST, /* the listings */
    FAKE_SUBSCRIBE_PATTERN,
    FAKE_PUBLISH_WITH,
    FAKE_HISTORY,
    FAKE_PRESENCE_JOIN,
    FAKE_PRESENCE_LEAVE,
    FAKE_PRESENCE_LIST,
    FAKE_LIST_TOPICS,
    FAKE_KIND_COUNT
};

struct fake_call {
    struct list link;
    enum fake_kind kind;
    char channel[CHANNEL_MAX]; /* what it is about, or empty */
    char *bytes;               /* FAKE_PUBLISH, FAKE_PUBLISH_WITH: what; FAKE_REGISTER: the notice. Owned */
    size_t len;
    char name[ADDRESS_NAME_MAX + 1], conn[64], user[ADDRESS_NAME_MAX + 1], agent[256]; /* of a session */
    char key[STORAGE_KEY_MAX + 1];                     /* FAKE_PUBLISH_WITH, as are the next two */
    char offset[OFFSET_MAX + 1], epoch[EPOCH_MAX + 1]; /* FAKE_HISTORY, as is the next */
    size_t limit;
    uint64_t ttl_ms;
    bool store;
    bool restore;
    struct storage_request *request;
};

struct fake_storage {
    struct storage storage;
    struct storage_events events;
    struct list open;             /* in the order made */
    size_t made[FAKE_KIND_COUNT]; /* since the start */
    size_t unsubscribed, unsubscribed_patterns;
};

/* A started storage is up at once. Destroyed through storage_destroy(), which cancels what is open. */
struct fake_storage *fake_storage_create(void);

/* The oldest open request of that kind; NULL when there is none. */
struct fake_call *fake_storage_next(const struct fake_storage *fake, enum fake_kind kind);

/* The open registration or unregistration of that conn; NULL when there is none. */
struct fake_call *fake_storage_of(const struct fake_storage *fake, enum fake_kind kind, struct slice conn);

size_t fake_storage_open(const struct fake_storage *fake, enum fake_kind kind); /* how many */

/* Calls back and forgets the request. A NULL call is answered with false, so a test can check that there was
 * one. */
bool fake_storage_answer(struct fake_call *call, int error, int64_t number);

/* The same with all of a result. */
bool fake_storage_answer_with(struct fake_call *call, int error, const struct storage_result *result);

/* The oldest of that kind; false when there is none. */
bool fake_storage_answer_next(struct fake_storage *fake, enum fake_kind kind, int error, int64_t number);

/* All that are open now, those that the callbacks make not included; returns how many. */
size_t fake_storage_answer_all(struct fake_storage *fake, enum fake_kind kind, int error, int64_t number);

/* A message that comes over the bus. */
void fake_storage_message(struct fake_storage *fake, const char *channel, struct slice bytes);

/* An outage: everything open answers ERROR_UNAVAILABLE. What is asked while it lasts stays open for the test.
 */
void fake_storage_down(struct fake_storage *fake);
void fake_storage_up(struct fake_storage *fake);
void fake_storage_lose_registry(struct fake_storage *fake);

#endif
