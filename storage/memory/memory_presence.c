/* Who is on a topic: members in the order they came, each also in its session's list. */
#include "base/alloc.h"
#include "proto/address.h"
#include "proto/errors.h"
#include "storage/memory/memory_storage.h"
#include "storage/presence_event.h"

struct presence {
    struct map_node node; /* in memory->presences by channel */
    struct list members;  /* never empty */
    size_t count;
    size_t len;
    char channel[];
};

struct member {
    struct list of_presence, of_session;
    struct presence *presence;
    struct registry_session *session; /* which outlives it */
};

static struct presence *presence_find(const struct memory *memory, struct slice channel)
{
    struct map_node *node = map_find(&memory->presences, channel.data, channel.len);

    return node ? container_of(node, struct presence, node) : NULL;
}

/* The channel's presence, made if there is none. NULL when memory is short. */
static struct presence *presence_get(struct memory *memory, struct slice channel)
{
    struct presence *presence = presence_find(memory, channel);

    if (presence)
        return presence;
    presence = mem_alloc(sizeof *presence + channel.len);
    if (!presence)
        return NULL;
    *presence = (struct presence){.len = channel.len};
    list_init(&presence->members);
    memcpy(presence->channel, channel.data, channel.len);
    if (map_insert(&memory->presences, &presence->node, presence->channel, channel.len))
        return presence;
    mem_free(presence);
    return NULL;
}

static void presence_drop_if_empty(struct memory *memory, struct presence *presence)
{
    if (!presence || presence->count)
        return;
    map_remove(&memory->presences, &presence->node);
    mem_free(presence);
}

static struct member *member_find(const struct registry_session *session, const struct presence *presence)
{
    list_for_each (pos, &session->presences) {
        struct member *member = container_of(pos, struct member, of_session);
        if (member->presence == presence)
            return member;
    }
    return NULL;
}

static void member_remove(struct memory *memory, struct member *member)
{
    list_remove(&member->of_presence);
    list_remove(&member->of_session);
    member->presence->count--;
    presence_drop_if_empty(memory, member->presence);
    mem_free(member);
}

void memory_presence_init(struct memory *memory)
{
    map_init(&memory->presences);
}

void memory_presence_close(struct memory *memory)
{
    for (struct map_node *node = map_next(&memory->presences, NULL), *next; node; node = next) {
        struct presence *presence = container_of(node, struct presence, node);
        next = map_next(&memory->presences, node);
        /* The last one takes the presence with it. */
        for (size_t count = presence->count; count; count--)
            member_remove(memory, container_of(presence->members.next, struct member, of_presence));
    }
    map_close(&memory->presences);
}

/* An item that tells the topic's subscribers. 0 or an error. */
static int announcement_create(struct memory *memory, enum message_kind kind, struct slice channel,
                               const struct registry_session *session, struct item **item)
{
    struct buffer bytes;

    buffer_init(&bytes, 0);
    int error =
        storage_presence_encode(kind, channel, session->name, session->fields[REGISTRY_USER].value, &bytes);
    if (!error) {
        *item = memory_item_create(memory, bytes.len);
        if (!*item) {
            error = ERROR_NO_MEMORY;
        } else if (!memory_address_item(memory, *item, channel, slice_from(bytes.data, bytes.len), false)) {
            memory_item_free(memory, *item);
            error = ERROR_NO_MEMORY;
        }
    }
    buffer_close(&bytes);
    return error;
}

void memory_presence_leave_all(struct memory *memory, struct registry_session *session)
{
    list_for_each_safe (pos, &session->presences) {
        struct member *member = container_of(pos, struct member, of_session);
        struct slice channel = slice_from(member->presence->channel, member->presence->len);
        struct item *item;
        if (announcement_create(memory, MESSAGE_LEAVE, channel, session, &item) == ERROR_NONE)
            memory_enqueue(memory, item, NULL);
        member_remove(memory, member);
    }
}

void memory_presence_move(struct registry_session *from, struct registry_session *to)
{
    list_for_each (pos, &from->presences)
        container_of(pos, struct member, of_session)->session = to;
    list_splice(&to->presences, &from->presences);
}

static int join(struct memory *memory, struct slice channel, struct registry_session *session,
                int64_t *joined)
{
    struct presence *presence = presence_get(memory, channel);
    struct item *item;
    int error = ERROR_NO_MEMORY;

    if (!presence)
        return error;
    if (member_find(session, presence))
        return ERROR_NONE;
    struct member *member = mem_alloc(sizeof *member);
    if (member)
        error = announcement_create(memory, MESSAGE_JOIN, channel, session, &item);
    if (error) {
        mem_free(member);
        presence_drop_if_empty(memory, presence);
        return error;
    }
    *member = (struct member){.presence = presence, .session = session};
    list_append(&presence->members, &member->of_presence);
    list_append(&session->presences, &member->of_session);
    presence->count++;
    memory_enqueue(memory, item, NULL);
    *joined = 1;
    return ERROR_NONE;
}

void memory_presence_join(struct storage *storage, struct slice channel,
                          const struct storage_session *session, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_session *held = registry_find(&memory->registry, session->name);
    if (address_check_name(session->name) != NULL)
        item->error = ERROR_BAD_REQUEST;
    else if (!held)
        item->error = ERROR_ABSENT;
    else if (!memory_session_holds(held, session->conn))
        item->error = ERROR_CONFLICT;
    else
        item->error = join(memory, channel, held, &item->number);
    memory_enqueue(memory, item, request);
}

static int leave(struct memory *memory, struct slice channel, struct registry_session *session, int64_t *left)
{
    struct presence *presence = presence_find(memory, channel);
    struct member *member = presence ? member_find(session, presence) : NULL;
    struct item *item;

    if (!member)
        return ERROR_NONE;
    int error = announcement_create(memory, MESSAGE_LEAVE, channel, session, &item);
    if (error)
        return error;
    member_remove(memory, member);
    memory_enqueue(memory, item, NULL);
    *left = 1;
    return ERROR_NONE;
}

void memory_presence_leave(struct storage *storage, struct slice channel,
                           const struct storage_session *session, struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    struct registry_session *held = registry_find(&memory->registry, session->name);
    if (memory_session_holds(held, session->conn))
        item->error = leave(memory, channel, held, &item->number);
    memory_enqueue(memory, item, request);
}

void memory_presence_list(struct storage *storage, struct slice channel, size_t limit,
                          struct storage_request *request)
{
    struct memory *memory = memory_of(storage);
    struct item *item = memory_item_for(memory, request, 0);

    if (!item)
        return;
    struct presence *presence = presence_find(memory, channel);
    if (presence) {
        size_t room = limit < presence->count ? limit : presence->count;
        item->number = (int64_t)presence->count;
        item->page = memory_session_page_create(room);
        if (!item->page)
            item->error = ERROR_NO_MEMORY;
        for (struct list *at = presence->members.next; item->page && item->page->count < room; at = at->next)
            memory_page_add_session(item->page, container_of(at, struct member, of_presence)->session,
                                    REGISTRY_USER, 1);
    }
    memory_enqueue(memory, item, request);
}
