/* IP addresses and networks: 10.0.0.0/8, 192.0.2.7, 2001:db8::/32. */
#ifndef BROKER_NETWORK_H
#define BROKER_NETWORK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct config_list;

#define NETWORK_TEXT_SIZE 64

/* An address in network byte order. An IPv4 address within IPv6 (::ffff:192.0.2.7) is that IPv4 address. */
struct network_address {
    bool v6;
    uint8_t bytes[16]; /* of IPv4 the first four */
};

struct network {
    struct network_address address;
    unsigned prefix; /* bits */
};

/* Reads ADDRESS or ADDRESS/BITS. False when it is neither, or has bits beyond its prefix. */
bool network_parse(const char *text, struct network *network);

/* False when it is no IP address, but a Unix socket's. */
bool network_address_of(const struct sockaddr *address, struct network_address *out);

bool network_is_loopback(const struct network_address *address);
bool network_holds(const struct network *network, const struct network_address *address);

/* Whether one of the networks of a configured list holds it. */
bool network_list_holds(const struct config_list *list, const struct network_address *address);

/* The address without a port, for log lines. Returns `out`. */
const char *network_format(const struct sockaddr *address, char out[static NETWORK_TEXT_SIZE]);

#endif
