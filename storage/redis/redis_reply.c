#include "storage/redis/redis_reply.h"

#include "base/alloc.h"

#include <hiredis/hiredis.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>

/* A block's size, and the largest one kept over a reset. */
enum { BLOCK_SIZE = 16 * 1024, BLOCK_KEEP = 256 * 1024 };

/* The reader may keep this much of its buffer between batches. */
enum { READER_KEEP = 256 * 1024 };

struct redis_arena_block {
    struct redis_arena_block *next;
    size_t size, used;
    alignas(max_align_t) char bytes[];
};

struct redis_replies {
    redisReader *reader;
    struct redis_arena arena;
    bool too_large; /* a bound was met; the reader itself only says "out of memory" */
    char error[160];
};

void redis_arena_init(struct redis_arena *arena)
{
    *arena = (struct redis_arena){0};
}

void redis_arena_close(struct redis_arena *arena)
{
    while (arena->blocks) {
        struct redis_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        mem_free(block);
    }
    arena->total = 0;
}

void redis_arena_reset(struct redis_arena *arena)
{
    struct redis_arena_block *block = arena->blocks;

    while (block && block->next) {
        arena->blocks = block->next;
        mem_free(block);
        block = arena->blocks;
    }
    if (block && block->size > BLOCK_KEEP) {
        mem_free(block);
        block = arena->blocks = NULL;
    }
    if (block)
        block->used = 0;
    arena->total = 0;
}

void *redis_arena_alloc(struct redis_arena *arena, size_t size)
{
    struct redis_arena_block *block = arena->blocks;

    size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (!block || block->size - block->used < size) {
        size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
        block = mem_alloc(sizeof *block + room);
        if (!block)
            return NULL;
        *block = (struct redis_arena_block){.next = arena->blocks, .size = room};
        arena->blocks = block;
    }
    void *bytes = block->bytes + block->used;
    block->used += size;
    arena->total += size;
    return bytes;
}

struct slice redis_arena_copy(struct redis_arena *arena, struct slice bytes)
{
    char *copy = redis_arena_alloc(arena, bytes.len + 1);

    if (!copy)
        return (struct slice){0};
    if (bytes.len)
        memcpy(copy, bytes.data, bytes.len);
    copy[bytes.len] = '\0';
    return slice_from(copy, bytes.len);
}

/* hiredis asks for an object a value and links none of them: a value inside an array goes into its slot. Any
 * NULL is reported by the reader as being out of memory, which ends the connection. */
static struct redis_reply *make(const redisReadTask *task, enum redis_type type)
{
    struct redis_replies *replies = task->privdata;
    struct redis_reply *reply;

    if (task->parent) {
        struct redis_reply *array = task->parent->obj;
        reply = (struct redis_reply *)&array->elements[task->idx];
    } else {
        reply = redis_arena_alloc(&replies->arena, sizeof *reply);
    }
    if (reply)
        *reply = (struct redis_reply){.type = type};
    return reply;
}

static bool fits(const redisReadTask *task, size_t more)
{
    struct redis_replies *replies = task->privdata;
    size_t max = REDIS_REPLY_BYTES_MAX;

    if (more < max && replies->arena.total < max - more)
        return true;
    replies->too_large = true;
    return false;
}

static void *make_text(const redisReadTask *task, char *bytes, size_t len, enum redis_type type)
{
    struct redis_replies *replies = task->privdata;
    struct redis_reply *reply = fits(task, len) ? make(task, type) : NULL;

    if (reply) {
        reply->text = redis_arena_copy(&replies->arena, slice_from(bytes, len));
        if (!reply->text.data)
            return NULL;
    }
    return reply;
}

static void *make_string(const redisReadTask *task, char *bytes, size_t len)
{
    if (task->type == REDIS_REPLY_ERROR)
        return make_text(task, bytes, len, REDIS_TYPE_ERROR);
    return make_text(task, bytes, len,
                     task->type == REDIS_REPLY_STATUS ? REDIS_TYPE_STATUS : REDIS_TYPE_STRING);
}

static void *make_array_of(const redisReadTask *task, size_t count)
{
    struct redis_replies *replies = task->privdata;
    size_t depth = 0;

    for (const redisReadTask *parent = task->parent; parent; parent = parent->parent)
        depth++;
    if (depth >= REDIS_REPLY_DEPTH_MAX || count > REDIS_REPLY_ELEMENTS_MAX) {
        replies->too_large = true;
        return NULL;
    }
    if (!fits(task, count * sizeof(struct redis_reply)))
        return NULL;
    struct redis_reply *reply = make(task, REDIS_TYPE_ARRAY);
    struct redis_reply *elements = redis_arena_alloc(&replies->arena, count * sizeof *elements);
    if (!reply || !elements)
        return NULL;
    memset(elements, 0, count * sizeof *elements);
    reply->elements = elements;
    reply->count = count;
    return reply;
}

static void *make_integer(const redisReadTask *task, long long value)
{
    struct redis_reply *reply = make(task, REDIS_TYPE_INTEGER);

    if (reply)
        reply->integer = value;
    return reply;
}

static void *make_nil(const redisReadTask *task)
{
    return make(task, REDIS_TYPE_NIL);
}

static void release(void *object)
{
    (void)object; /* the arena's */
}

#if HIREDIS_MAJOR >= 1
static void *make_array(const redisReadTask *task, size_t count)
{
    return make_array_of(task, count);
}

static void *make_double(const redisReadTask *task, double value, char *bytes, size_t len)
{
    (void)value;
    return make_text(task, bytes, len, REDIS_TYPE_STRING);
}

static void *make_bool(const redisReadTask *task, int value)
{
    return make_integer(task, value);
}
#else
static void *make_array(const redisReadTask *task, int count)
{
    return make_array_of(task, (size_t)count);
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = make_string,
    .createArray = make_array,
    .createInteger = make_integer,
    .createNil = make_nil,
    .freeObject = release,
#if HIREDIS_MAJOR >= 1
    .createDouble = make_double,
    .createBool = make_bool,
#endif
};

struct redis_replies *redis_replies_create(void)
{
    struct redis_replies *replies = mem_calloc(1, sizeof *replies);

    if (!replies)
        return NULL;
    replies->reader = redisReaderCreateWithFunctions(&functions);
    if (!replies->reader) {
        mem_free(replies);
        return NULL;
    }
    redis_arena_init(&replies->arena);
    replies->reader->privdata = replies;
    replies->reader->maxbuf = READER_KEEP;
    return replies;
}

void redis_replies_destroy(struct redis_replies *replies)
{
    if (!replies)
        return;
    redisReaderFree(replies->reader);
    redis_arena_close(&replies->arena);
    mem_free(replies);
}

bool redis_replies_feed(struct redis_replies *replies, const char *bytes, size_t len)
{
    return redisReaderFeed(replies->reader, bytes, len) == REDIS_OK;
}

const struct redis_reply *redis_replies_next(struct redis_replies *replies, const char **error)
{
    void *reply = NULL;

    /* Between replies the arena holds the last one only; in the middle of one, its first part. */
    if (replies->reader->ridx == -1)
        redis_arena_reset(&replies->arena);
    *error = NULL;
    if (redisReaderGetReply(replies->reader, &reply) != REDIS_OK) {
        snprintf(replies->error, sizeof replies->error, "%s",
                 replies->too_large ? "a reply is larger or deeper than any this client asks for"
                                    : replies->reader->errstr);
        *error = replies->error;
        return NULL;
    }
    if (!reply && replies->reader->len - replies->reader->pos > REDIS_REPLY_BYTES_MAX)
        *error = "a reply is larger than any this client asks for";
    return reply;
}

static const struct redis_reply *element(const struct redis_reply *reply, size_t index)
{
    return reply && reply->type == REDIS_TYPE_ARRAY && index < reply->count ? &reply->elements[index] : NULL;
}

struct slice redis_reply_text(const struct redis_reply *reply, size_t index)
{
    const struct redis_reply *found = element(reply, index);

    return found && found->text.data ? found->text : slice_from("", 0);
}

int64_t redis_reply_integer(const struct redis_reply *reply, size_t index)
{
    const struct redis_reply *found = element(reply, index);

    return found && found->type == REDIS_TYPE_INTEGER ? found->integer : 0;
}

bool redis_reply_is_error(const struct redis_reply *reply, const char *code)
{
    size_t len = strlen(code);

    return reply && reply->type == REDIS_TYPE_ERROR && reply->text.len >= len &&
           memcmp(reply->text.data, code, len) == 0 &&
           (reply->text.len == len || reply->text.data[len] == ' ');
}
