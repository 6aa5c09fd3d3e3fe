/* The listening socket: accepts TCP connections on the loop and hands their descriptors on.
 *
 * SO_REUSEPORT is set, so several processes of one user may share a port. A shortage of descriptors or memory
 * pauses accepting for a tenth of a second and is logged once, until ten seconds passed without one. */
#ifndef BROKER_LISTENER_H
#define BROKER_LISTENER_H

#include <event2/util.h>
#include <stddef.h>
#include <sys/socket.h>

struct listener;
struct loop;

/* A connection came: `fd` (non-blocking, close-on-exec, TCP_NODELAY) is the callee's from here on. */
typedef void (*listener_accept_cb)(void *data, evutil_socket_t fd, const struct sockaddr *peer,
                                   socklen_t peer_len);

/* Listens on `address`: HOST:PORT, [IPV6]:PORT, or :PORT and *:PORT for all addresses of both families. Of a
 * name with several addresses, the first that can be bound is taken. Port 0 picks a free one. NULL on failure
 * (logged). */
struct listener *listener_create(struct loop *loop, const char *address, listener_accept_cb on_accept,
                                 void *data);

/* The same, on a port that no other process may share. */
struct listener *listener_create_alone(struct loop *loop, const char *address, listener_accept_cb on_accept,
                                       void *data);

/* Called before each pause for want of descriptors, with the listening socket: whoever keeps one in reserve can take a connection
 * itself. Must not stop the listener. */
void listener_on_exhausted(struct listener *listener,
                           void (*on_exhausted)(void *data, evutil_socket_t listening));

void listener_destroy(struct listener *listener); /* also from on_accept */

/* What it listens on, as HOST:PORT with the real port; valid as long as the listener. */
const char *listener_address(const struct listener *listener);

/* Closes the listening socket; connections handed on are not touched. Idempotent, also from on_accept. */
void listener_stop(struct listener *listener);

/* Splits an address as above. Copies the host, without brackets and empty for "all", into `host`.
 * 0, or -1 with a text for people in *problem. */
int listener_parse(const char *address, char *host, size_t host_size, unsigned *port, const char **problem);

/* Writes a numeric address as HOST:PORT, IPv6 in brackets, NUL-terminated; returns its length, 0 when it has no such form or
 * doesn't fit. */
size_t listener_format(const struct sockaddr *address, socklen_t len, char *out, size_t size);

/* The same of the socket's own end. */
size_t listener_format_own(evutil_socket_t fd, char *out, size_t size);

/* Sets the limit of open descriptors to `wanted`, or to the hard limit if that is less. Logs and returns the limit in
 * force. Not more than needed, because libwebsockets keeps a table of that size and searches all of it when a
 * connection ends: 1.4 ns an entry, a millisecond and a half where the limit is a million. */
size_t listener_set_fd_limit(size_t wanted);

#endif
