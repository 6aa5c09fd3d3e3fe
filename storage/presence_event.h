/* The messages that tell a topic's subscribers who appeared in its presence and who disappeared. */
#ifndef STORAGE_PRESENCE_EVENT_H
#define STORAGE_PRESENCE_EVENT_H

#include "base/buffer.h"
#include "proto/message.h"

/* Appends the envelope of a MESSAGE_JOIN or MESSAGE_LEAVE: from the session, to the topic of that channel, its
 * payload the user. 0, ERROR_BAD_REQUEST when the channel is no topic's or the session's name is none, or
 * ERROR_NO_MEMORY. */
int storage_presence_encode(enum message_kind kind, struct slice channel, struct slice session,
                            struct slice user, struct buffer *out) __attribute__((warn_unused_result));

#endif
