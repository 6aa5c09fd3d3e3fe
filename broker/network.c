#include "broker/network.h"

#include "broker/config.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { V4_BYTES = 4, V6_BYTES = 16 };

static void set_v6(const uint8_t *bytes, struct network_address *out)
{
    static const uint8_t mapped[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    *out = (struct network_address){.v6 = memcmp(bytes, mapped, sizeof mapped) != 0};
    memcpy(out->bytes, out->v6 ? bytes : bytes + sizeof mapped, out->v6 ? V6_BYTES : V4_BYTES);
}

/* Whether all bits behind the prefix are 0. */
static bool is_network(const struct network *network)
{
    size_t size = network->address.v6 ? V6_BYTES : V4_BYTES;

    for (size_t i = 0; i < size; i++) {
        unsigned bits = network->prefix > i * 8 ? network->prefix - (unsigned)i * 8 : 0;
        unsigned host = bits >= 8 ? 0 : 0xffu >> bits;
        if (network->address.bytes[i] & host)
            return false;
    }
    return true;
}

static bool parse_prefix(const char *text, unsigned max, unsigned *prefix)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    unsigned long bits = strtoul(text, &end, 10);
    *prefix = (unsigned)bits;
    return !*end && bits <= max;
}

bool network_parse(const char *text, struct network *network)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);

    if (len >= sizeof address)
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    *network = (struct network){.address.v6 = strchr(address, ':') != NULL};
    bool v6 = network->address.v6;
    network->prefix = v6 ? V6_BYTES * 8 : V4_BYTES * 8;
    return inet_pton(v6 ? AF_INET6 : AF_INET, address, network->address.bytes) == 1 &&
           (!slash || parse_prefix(slash + 1, network->prefix, &network->prefix)) && is_network(network);
}

bool network_address_of(const struct sockaddr *address, struct network_address *out)
{
    if (address->sa_family == AF_INET) {
        *out = (struct network_address){0};
        memcpy(out->bytes, &((const struct sockaddr_in *)address)->sin_addr, V4_BYTES);
        return true;
    }
    if (address->sa_family != AF_INET6)
        return false;
    set_v6(((const struct sockaddr_in6 *)address)->sin6_addr.s6_addr, out);
    return true;
}

bool network_is_loopback(const struct network_address *address)
{
    static const uint8_t loopback[V6_BYTES] = {[V6_BYTES - 1] = 1};

    return address->v6 ? memcmp(address->bytes, loopback, V6_BYTES) == 0 : address->bytes[0] == 127;
}

bool network_holds(const struct network *network, const struct network_address *address)
{
    if (network->address.v6 != address->v6)
        return false;
    size_t whole = network->prefix / 8;
    unsigned rest = network->prefix % 8;
    if (memcmp(network->address.bytes, address->bytes, whole) != 0)
        return false;
    return !rest || (network->address.bytes[whole] ^ address->bytes[whole]) >> (8 - rest) == 0;
}

bool network_list_holds(const struct config_list *list, const struct network_address *address)
{
    struct network network;

    for (size_t i = 0; i < list->count; i++)
        if (network_parse(list->items[i], &network) && network_holds(&network, address))
            return true;
    return false;
}

const char *network_format(const struct sockaddr *address, char out[static NETWORK_TEXT_SIZE])
{
    struct network_address from;

    out[0] = '\0';
    if (network_address_of(address, &from))
        inet_ntop(from.v6 ? AF_INET6 : AF_INET, from.bytes, out, NETWORK_TEXT_SIZE);
    return out;
}
