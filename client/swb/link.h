/* A command's connection to the broker: the client, its loop, signals, and the exit code it all ends with. */
#ifndef CLIENT_SWB_LINK_H
#define CLIENT_SWB_LINK_H

#include "client/swb/swb.h"
#include "client/switchboard.h"

struct event;
struct event_base;

struct link {
    const struct args *args;
    struct event_base *base;
    struct swb_client *client;
    struct event *signals[3];
    bool was_online;
    int status; /* what link_run() returns */
    /* Set before link_open(), each may be NULL. */
    void *data;
    bool lasting;                         /* reconnect for ever once it was online */
    bool as_session;                      /* --user and --session say who connects */
    void (*on_online)(struct link *link); /* after each connect */
    void (*on_message)(struct link *link, const struct swb_message *message);
    void (*on_recovery)(struct link *link, const struct swb_recovery *recovery);
};

/* Begins to connect. False: it was said why not, and link->status is the exit code. To be closed in either case. */
bool link_open(struct link *link, const struct args *args);

/* Runs until link_end(), a signal or the final loss of the connection; returns the exit code. */
int link_run(struct link *link);

/* Says goodbye to the broker; link_run() then returns `status`. The first call counts. */
void link_end(struct link *link, int status);

/* As link_end() with the exit code of a call's error, after saying what it was. */
void link_fail(struct link *link, const char *what, int error, const char *text);

void link_close(struct link *link);

#endif
