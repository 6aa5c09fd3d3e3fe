#include "proto/push.h"

#include "proto/address.h"

#include <string.h>

/* Only sessions are shown as senders; an instance that asks for an HTTP caller is nobody a client could write
 * to. */
static bool has_sender(const struct message_fields *fields)
{
    struct address from;

    return fields->from.len && !address_parse(fields->from, &from) && from.kind == ADDRESS_SESSION;
}

static void write_common(struct writer *writer, const struct message_fields *fields, bool sender)
{
    writer_pair_str(writer, "to", fields->to);
    if (sender)
        writer_pair_str(writer, "from", fields->from);
    writer_pair_int(writer, "time", (int64_t)fields->time_ms);
}

static void write_message_fields(struct writer *writer, const struct message_fields *fields, bool sender,
                                 bool stored)
{
    write_common(writer, fields, sender);
    if (stored) {
        writer_pair_str(writer, "offset", fields->offset);
        writer_pair_str(writer, "epoch", fields->epoch);
    }
    writer_payload(writer, fields->content, fields->payload);
}

void push_write_message(struct writer *writer, const struct message_fields *fields)
{
    bool sender = has_sender(fields), stored = fields->offset.len > 0;

    writer_map(writer, 3u + sender + 2u * stored);
    write_message_fields(writer, fields, sender, stored);
    writer_end(writer);
}

static void write_data(struct writer *writer, const struct message_fields *fields)
{
    bool sender = has_sender(fields), stored = fields->offset.len > 0;

    writer_map(writer, 4u + sender + 2u * stored);
    writer_pair_str(writer, "push", slice_text("message"));
    write_message_fields(writer, fields, sender, stored);
    writer_end(writer);
}

static void write_request(struct writer *writer, const struct message_fields *fields)
{
    bool sender = has_sender(fields);

    writer_map(writer, 6u + sender);
    writer_pair_str(writer, "push", slice_text("request"));
    writer_pair_str(writer, "request", fields->correlation);
    write_common(writer, fields, sender);
    writer_pair_int(writer, "timeout", (int64_t)fields->timeout_ms);
    writer_payload(writer, fields->content, fields->payload);
    writer_end(writer);
}

static void write_cancel(struct writer *writer, const struct message_fields *fields)
{
    writer_map(writer, 2);
    writer_pair_str(writer, "push", slice_text("cancel"));
    writer_pair_str(writer, "request", fields->correlation);
    writer_end(writer);
}

static void write_presence(struct writer *writer, const struct message_fields *fields)
{
    struct address topic = {.name = fields->to}, session = {.name = fields->from};
    bool user = fields->payload.len > 0;

    /* A message whose addresses are no addresses shows them as they are. */
    (void)!address_parse(fields->to, &topic);
    (void)!address_parse(fields->from, &session);
    writer_map(writer, 3u + user);
    writer_pair_str(writer, "push", slice_text(fields->kind == MESSAGE_JOIN ? "join" : "leave"));
    writer_pair_str(writer, "topic", topic.name);
    writer_pair_str(writer, "session", session.name);
    if (user)
        writer_pair_str(writer, "user", fields->payload);
    writer_end(writer);
}

bool push_write(const struct message_fields *fields, enum face face, struct buffer *out)
{
    struct writer writer;

    writer_begin(&writer, face, out);
    switch (fields->kind) {
    case MESSAGE_REQUEST:
        write_request(&writer, fields);
        break;
    case MESSAGE_CANCEL:
        write_cancel(&writer, fields);
        break;
    case MESSAGE_JOIN:
    case MESSAGE_LEAVE:
        write_presence(&writer, fields);
        break;
    default:
        write_data(&writer, fields);
        break;
    }
    return !out->failed;
}
