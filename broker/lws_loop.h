/* libwebsockets served by our event loop: its sockets, timers and pending input, without a loop or a poll of
 * its own.
 *
 * Two libraries are known: 4.1.6, through an adapter that knows that version's private table of event
 * operations, and 4.2 and later, whose table is public. CMake picks the one that fits; a library found at run
 * time that does not fit is refused. */
#ifndef BROKER_LWS_LOOP_H
#define BROKER_LWS_LOOP_H

struct loop;
struct lws;
struct lws_context;
struct lws_context_creation_info;
struct lws_loop;

/* Where the next input of a connection comes from. */
enum lws_loop_input {
    LWS_LOOP_SOCKET, /* the socket, which tells when there is some */
    LWS_LOOP_MEMORY, /* it is there already: libwebsockets can read at once */
    LWS_LOOP_BLOCKED /* nothing can be read before the socket is writable */
};

/* Makes a libwebsockets context from `info` that runs on `loop`; the event loop fields of `info` are filled
 * in here, all else is the caller's. The library's own messages go to our log from now on. NULL on failure
 * (logged); callbacks of the context may have run even then. `loop` must outlive the result. */
struct lws_loop *lws_loop_create(struct loop *loop, struct lws_context_creation_info *info);

struct lws_context *lws_loop_context(struct lws_loop *lws); /* owned by `lws` */

/* To be called while input of `wsi` is handled: there should be more of it in the socket, so read again at once instead of in the
 * next turn. libwebsockets reads no more than a small buffer at a time. */
void lws_loop_expect_more(struct lws *wsi);

/* From now on `input_of` is asked where further input comes from, whenever libwebsockets has read. For who puts something
 * between libwebsockets and a socket; without it all input comes from sockets. */
void lws_loop_set_input_of(struct lws_loop *lws, enum lws_loop_input (*input_of)(struct lws *wsi));

/* Lets libwebsockets read from `wsi` now. Not from a callback of libwebsockets. The connection may be gone afterwards. */
void lws_loop_read(struct lws *wsi);

/* Destroys the context with every connection left in it; those get their CLOSED callbacks, their peers no
 * close frame. Not from a callback of libwebsockets: use loop_defer(). */
void lws_loop_destroy(struct lws_loop *lws);

#endif
