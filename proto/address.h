/* Where a message can go: session:NAME, user:UID or topic:NAME; and each address's channel on the bus.
 *
 * A channel is the address with its name percent-encoded and in braces: session:{userSever_8080}. The braces
 * are a Redis Cluster hash tag
 * (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags), so key, channel and
 * history of one address share a slot. The storage puts its prefix ("sb:") before a channel. */
#ifndef PROTO_ADDRESS_H
#define PROTO_ADDRESS_H

#include "proto/slice.h"

#include <stdbool.h>
#include <stddef.h>

enum address_kind { ADDRESS_SESSION, ADDRESS_USER, ADDRESS_TOPIC, ADDRESS_INSTANCE };

/* Between a shared address's name and the id of the connection, in the name of a session there. */
#define ADDRESS_SHARED_MARK '~'

enum {
    ADDRESS_NAME_MAX = 255,                         /* bytes of UTF-8 */
    ADDRESS_MAX = ADDRESS_NAME_MAX + 9,             /* the longest kind is "instance:" */
    CHANNEL_MAX = 3 * ADDRESS_NAME_MAX + 9 + 2 + 1, /* every byte encoded, braces, NUL */
};

struct address {
    enum address_kind kind;
    struct slice name; /* points into what was parsed */
};

/* Parses "kind:NAME" as a client or operator writes it; instance: is not theirs to use and is refused. NULL
 * on success, otherwise a constant text that says what is wrong. */
const char *address_parse(struct slice text, struct address *address) __attribute__((warn_unused_result));

/* The same for addresses from another instance: instance: is allowed too. */
bool address_from_text(struct slice text, struct address *address) __attribute__((warn_unused_result));

/* NULL when `name` can be an address's name (1 to ADDRESS_NAME_MAX bytes of UTF-8 without control characters
 * and invisible ones, see base/printable.h), otherwise a constant text that says what is wrong. */
const char *address_check_name(struct slice name);

/* The same for a session's exclusive name, the one that a newer connection takes over: nobody may take a name of the form
 * NAME~CONN, which a session of a shared address has for its own. */
const char *address_check_exclusive(struct slice name);

/* Whether a key can be made for it. Less than address_check_name() asks: what the registry holds, by whomever it was
 * written, must be removable. */
bool address_is_key(struct slice name);

const char *address_kind_name(enum address_kind kind);

/* Writes the address's channel, NUL-terminated; returns its length. The name must have passed
 * address_check_name(). */
size_t address_channel(const struct address *address, char out[static CHANNEL_MAX]);

/* Writes "kind:NAME", NUL-terminated; returns its length. */
size_t address_format(const struct address *address, char out[static ADDRESS_MAX + 1]);

/* Reads a channel back: `name` receives the decoded name (at least ADDRESS_NAME_MAX + 1 bytes; address->name
 * points to it). False when it is no channel of ours. */
bool address_from_channel(struct slice channel, struct address *address, char *name)
    __attribute__((warn_unused_result));

/* Percent-encodes a name as it stands between braces (braces, '%', whitespace and control characters are
 * encoded). Returns the length written to `out`, which holds 3 * name.len + 1 bytes. */
size_t address_encode_name(struct slice name, char *out);

#endif
