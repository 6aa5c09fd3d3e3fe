#include "proto/message.h"

#include "base/alloc.h"
#include "proto/frame.h"

#include <string.h>

const char *face_name(enum face face)
{
    static const char *const names[FACE_COUNT] = {
        [FACE_PLAIN] = "plain", [FACE_JSON] = "json", [FACE_MSGPACK] = "msgpack"};
    return names[face];
}

static struct slice copy_slice(struct slice from, char **at)
{
    struct slice copy = slice_from(*at, from.len);

    if (from.len)
        memcpy(*at, from.data, from.len);
    *at += from.len;
    return copy;
}

struct message *message_create(const struct message_fields *fields)
{
    size_t len = fields->id.len + fields->from.len + fields->to.len + fields->payload.len +
                 fields->correlation.len + fields->offset.len + fields->epoch.len;
    struct message *message = mem_alloc(sizeof *message + len);

    if (!message)
        return NULL;
    *message = (struct message){.refs = 1, .fields = *fields, .len = len};
    char *at = message->bytes;
    message->fields.id = copy_slice(fields->id, &at);
    message->fields.from = copy_slice(fields->from, &at);
    message->fields.to = copy_slice(fields->to, &at);
    message->fields.correlation = copy_slice(fields->correlation, &at);
    message->fields.offset = copy_slice(fields->offset, &at);
    message->fields.epoch = copy_slice(fields->epoch, &at);
    message->fields.payload = copy_slice(fields->payload, &at);
    return message;
}

struct message *message_ref(struct message *message)
{
    message->refs++;
    return message;
}

void message_unref(struct message *message)
{
    if (!message || --message->refs > 0)
        return;
    for (size_t i = 0; i < FACE_COUNT; i++)
        frame_unref(message->frames[i]);
    mem_free(message);
}
