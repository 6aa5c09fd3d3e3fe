/* What the two bindings of lws_loop.h share: the event operations of libwebsockets in terms of our loop. */
#ifndef BROKER_LWS_LOOP_OPS_H
#define BROKER_LWS_LOOP_OPS_H

#include <stdbool.h>

struct lws;
struct lws_context;
struct lws_context_creation_info;

/* Implemented by each binding: checks that the library loaded is one it knows, and makes `info` lead to the
 * operations below. 0, or -1 (logged). */
int lws_loop_bind(struct lws_context_creation_info *info);

int lws_loop_on_init(struct lws_context *context, void *lws, int thread); /* the context takes its loop */
int lws_loop_on_accept(struct lws *wsi); /* nonzero: memory is short, refuse it */
void lws_loop_on_interest(struct lws *wsi, bool start, bool read, bool write);
void lws_loop_on_gone(struct lws *wsi); /* its socket is about to be closed; may come more than once */

#endif
