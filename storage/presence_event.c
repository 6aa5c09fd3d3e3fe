#include "storage/presence_event.h"

#include "base/clock.h"
#include "proto/address.h"
#include "proto/envelope.h"
#include "proto/errors.h"

int storage_presence_encode(enum message_kind kind, struct slice channel, struct slice session,
                            struct slice user, struct buffer *out)
{
    struct address topic, sender = {.kind = ADDRESS_SESSION, .name = session};
    char name[ADDRESS_NAME_MAX + 1], from[ADDRESS_MAX + 1], to[ADDRESS_MAX + 1];

    if (!address_from_channel(channel, &topic, name) || topic.kind != ADDRESS_TOPIC ||
        address_check_name(session) != NULL)
        return ERROR_BAD_REQUEST;
    const struct message_fields fields = {.kind = kind,
                                          .content = CONTENT_TEXT,
                                          .time_ms = clock_wall_ms(),
                                          .from = slice_from(from, address_format(&sender, from)),
                                          .to = slice_from(to, address_format(&topic, to)),
                                          .payload = user};
    return envelope_encode(&fields, out) ? ERROR_NONE : ERROR_NO_MEMORY;
}
