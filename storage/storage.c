#include "storage/storage.h"

#include "proto/address.h"
#include "proto/errors.h"

#include <stdio.h>

void storage_start(struct storage *storage, const struct storage_events *events,
                   const struct storage_instance *instance)
{
    storage->ops->start(storage, events, instance);
}

void storage_leave(struct storage *storage, struct storage_request *request)
{
    storage->ops->leave(storage, request);
}

void storage_destroy(struct storage *storage)
{
    if (storage)
        storage->ops->destroy(storage);
}

enum storage_state storage_state(const struct storage *storage)
{
    return storage->state;
}

uint64_t storage_direct_count(const struct storage *storage)
{
    return storage->direct_count;
}

const char *storage_name(const struct storage *storage)
{
    return storage->ops->name;
}

void storage_subscribe(struct storage *storage, struct slice channel, struct storage_request *request)
{
    storage->ops->subscribe(storage, channel, request);
}

void storage_unsubscribe(struct storage *storage, struct slice channel)
{
    storage->ops->unsubscribe(storage, channel);
}

void storage_publish(struct storage *storage, struct slice channel, struct slice bytes,
                     struct storage_request *request)
{
    storage->ops->publish(storage, channel, bytes, request);
}

void storage_probe(struct storage *storage, struct storage_request *request)
{
    storage->ops->probe(storage, request);
}

void storage_subscribe_pattern(struct storage *storage, struct slice pattern, struct storage_request *request)
{
    storage->ops->subscribe_pattern(storage, pattern, request);
}

void storage_unsubscribe_pattern(struct storage *storage, struct slice pattern)
{
    storage->ops->unsubscribe_pattern(storage, pattern);
}

void storage_publish_with(struct storage *storage, struct slice channel,
                          const struct storage_publication *publication, struct storage_request *request)
{
    storage->ops->publish_with(storage, channel, publication, request);
}

void storage_history(struct storage *storage, struct slice channel, const struct storage_history_query *query,
                     struct storage_request *request)
{
    storage->ops->history(storage, channel, query, request);
}

void storage_presence_join(struct storage *storage, struct slice channel,
                           const struct storage_session *session, struct storage_request *request)
{
    storage->ops->presence_join(storage, channel, session, request);
}

void storage_presence_leave(struct storage *storage, struct slice channel,
                            const struct storage_session *session, struct storage_request *request)
{
    storage->ops->presence_leave(storage, channel, session, request);
}

void storage_presence_list(struct storage *storage, struct slice channel, size_t limit,
                           struct storage_request *request)
{
    storage->ops->presence_list(storage, channel, limit, request);
}

struct slice storage_words(int error, const struct storage_result *result, char out[static STORAGE_WORDS_MAX])
{
    const char *before = "", *behind = "";

    if (!error || !result->why.len)
        return slice_from(NULL, 0);
    if (error == ERROR_LIMIT)
        before = "what is stored has reached ";
    else if (error == ERROR_TOO_LARGE)
        before = "the message is larger than ", behind = ", so it can't be stored";
    int len =
        snprintf(out, STORAGE_WORDS_MAX, "%s%.*s%s", before, (int)result->why.len, result->why.data, behind);
    return slice_from(out, len < STORAGE_WORDS_MAX ? (size_t)len : STORAGE_WORDS_MAX - 1);
}

void storage_list_topics(struct storage *storage, size_t limit, struct storage_request *request)
{
    storage->ops->list_topics(storage, limit, request);
}

bool storage_may_bear(const struct storage_session *session)
{
    struct slice name = session->name, conn = session->conn;

    if (!name.len || !memchr(name.data, ADDRESS_SHARED_MARK, name.len))
        return true;
    return name.len > conn.len && name.data[name.len - conn.len - 1] == ADDRESS_SHARED_MARK &&
           slice_equal(slice_from(name.data + name.len - conn.len, conn.len), conn);
}

void storage_register(struct storage *storage, const struct storage_session *session, struct slice notice,
                      bool restore, struct storage_request *request)
{
    storage->ops->register_session(storage, session, notice, restore, request);
}

void storage_unregister(struct storage *storage, const struct storage_session *session,
                        struct storage_request *request)
{
    storage->ops->unregister_session(storage, session, request);
}

void storage_count(struct storage *storage, struct storage_request *request)
{
    storage->ops->count(storage, request);
}

void storage_list_sessions(struct storage *storage, struct slice cursor, size_t limit,
                           struct storage_request *request)
{
    storage->ops->list_sessions(storage, cursor, limit, request);
}

void storage_find_session(struct storage *storage, struct slice name, struct storage_request *request)
{
    storage->ops->find_session(storage, name, request);
}

void storage_list_user(struct storage *storage, struct slice user, struct storage_request *request)
{
    storage->ops->list_user(storage, user, request);
}

void storage_peek_user(struct storage *storage, struct slice user, size_t limit,
                       struct storage_request *request)
{
    storage->ops->peek_user(storage, user, limit, request);
}

void storage_list_instances(struct storage *storage, struct storage_request *request)
{
    storage->ops->list_instances(storage, request);
}
