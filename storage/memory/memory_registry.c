/* The requests about who is connected; registry.h keeps the record. */
#include "proto/address.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

bool memory_session_holds(const struct registry_session *session, struct slice conn)
{
    return session && slice_equal(session->fields[REGISTRY_CONN].value, conn);
}

static bool valid(const struct storage_session *session)
{
    return storage_may_bear(session) && address_check_name(session->name) == NULL && session->conn.len &&
           (!session->user.len || address_check_name(session->user) == NULL);
}

/* The session's presences stay with the connection; a successor begins without. */
static bool put(struct memory *memory, const struct storage_session *session, struct registry_session *old,
                bool ours)
{
    if (old)
        registry_session_ref(old);
    bool done = registry_put(&memory->registry, session, memory->instance.id, old);
    if (done && old && ours)
        memory_presence_move(old, registry_find(&memory->registry, session->name));
    else if (done && old)
        memory_presence_leave_all(memory, old);
    if (old)
        registry_session_unref(old);
    return done;
}

static bool notify(struct memory *memory, struct item *item, struct slice name, struct slice notice)
{
    const struct address address = {.kind = ADDRESS_SESSION, .name = name};
    char channel[CHANNEL_MAX];
    size_t len = address_channel(&address, channel);

    return memory_address_item(memory, item, slice_from(channel, len), notice, false);
}

void memory_register(struct storage *storage, const struct storage_session *session, struct slice notice,
                     bool restore, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, notice.len);

    if (!item)
        return;
    struct registry_session *old = registry_find(&memory->registry, session->name);
    bool ours = memory_session_holds(old, session->conn);
    if (!valid(session)) {
        item->error = ERROR_BAD_REQUEST;
    } else if (restore && old && !ours && old->connected_at_ms > session->connected_at_ms) {
        item->error = ERROR_CONFLICT;
    } else if (!put(memory, session, old, ours)) {
        item->error = ERROR_NO_MEMORY;
    } else {
        item->number = old && !ours ? STORAGE_REPLACED_SOMEBODY : STORAGE_REPLACED_NOBODY;
        if (notice.len && !(restore && ours) && !notify(memory, item, session->name, notice))
            item->error = ERROR_NO_MEMORY;
    }
    memory_enqueue(memory, item, request);
}

void memory_unregister(struct storage *storage, const struct storage_session *session,
                       struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_session *held = registry_find(&memory->registry, session->name);
    if (memory_session_holds(held, session->conn)) {
        memory_presence_leave_all(memory, held);
        registry_remove(&memory->registry, held);
        item->number = 1;
    }
    memory_enqueue(memory, item, request);
}

void memory_count(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    item->number = (int64_t)memory->registry.sessions.count;
    memory_enqueue(memory, item, request);
}

void memory_list_sessions(struct storage *storage, struct slice cursor, size_t limit,
                          struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct registry *registry = &memory->registry;
    char digits[24] = "";
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    if (cursor.len && cursor.len < sizeof digits)
        memcpy(digits, cursor.data, cursor.len);
    if (limit > registry->sessions.count)
        limit = registry->sessions.count;
    item->page = memory_session_page_create(limit);
    if (!item->page) {
        item->error = ERROR_NO_MEMORY;
        memory_enqueue(memory, item, request);
        return;
    }
    struct registry_session *session = registry_after(registry, strtoull(digits, NULL, 10));
    struct list *at = session ? &session->in_order : &registry->order;
    for (; at != &registry->order && item->page->count < limit; at = at->next) {
        session = container_of(at, struct registry_session, in_order);
        memory_page_add_session(item->page, session, REGISTRY_CONN, REGISTRY_FIELD_COUNT);
    }
    if (at != &registry->order && item->page->count)
        snprintf(item->page->cursor, sizeof item->page->cursor, "%" PRIu64, session->sequence);
    memory_enqueue(memory, item, request);
}

void memory_find_session(struct storage *storage, struct slice name, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_session *session = registry_find(&memory->registry, name);
    if (session) {
        item->page = memory_session_page_create(1);
        if (item->page)
            memory_page_add_session(item->page, session, REGISTRY_CONN, REGISTRY_FIELD_COUNT);
        else
            item->error = ERROR_NO_MEMORY;
    }
    memory_enqueue(memory, item, request);
}

static void list_user(struct storage *storage, struct slice name, size_t limit, bool counted,
                      struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_user *user = registry_find_user(&memory->registry, name);
    if (user) {
        item->number = counted ? (int64_t)user->session_count : 0;
        item->page = memory_session_page_create(limit < user->session_count ? limit : user->session_count);
        if (!item->page)
            item->error = ERROR_NO_MEMORY;
    }
    if (item->page) {
        list_for_each (pos, &user->sessions)
            if (item->page->count < limit)
                memory_page_add_session(item->page, container_of(pos, struct registry_session, of_user),
                                        REGISTRY_INSTANCE, 1);
    }
    memory_enqueue(memory, item, request);
}

void memory_list_user(struct storage *storage, struct slice name, struct storage_request *request)
{
    list_user(storage, name, SIZE_MAX, false, request);
}

void memory_peek_user(struct storage *storage, struct slice name, size_t limit,
                      struct storage_request *request)
{
    list_user(storage, name, limit, true, request);
}

void memory_list_instances(struct storage *storage, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    item->lists_instance = memory->registered;
    memory_enqueue(memory, item, request);
}
