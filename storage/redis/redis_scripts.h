/* Lua scripts by number: loaded on every new connection, called by hash, and sent again in order when the
 * server has forgotten them (SCRIPT FLUSH). */
#ifndef STORAGE_REDIS_SCRIPTS_H
#define STORAGE_REDIS_SCRIPTS_H

#include "storage/redis/redis_conn.h"

#include "base/list.h"

enum redis_script {
    REDIS_SCRIPT_REGISTER,
    REDIS_SCRIPT_UNREGISTER,
    REDIS_SCRIPT_FORGET,
    REDIS_SCRIPT_HEARTBEAT,
    REDIS_SCRIPT_CLAIM,
    REDIS_SCRIPT_LEASE,
    REDIS_SCRIPT_REAP,
    REDIS_SCRIPT_PUBLISH,
    REDIS_SCRIPT_HISTORY,
    REDIS_SCRIPT_PRESENCE_ADD,
    REDIS_SCRIPT_PRESENCE_DROP,
    REDIS_SCRIPT_JOIN,
    REDIS_SCRIPT_LEAVE,
    REDIS_SCRIPT_TOPICS,
    REDIS_SCRIPT_COUNT
};

extern const char *const redis_script_texts[REDIS_SCRIPT_COUNT];

struct redis_scripts {
    struct redis_conn *conn;
    char hash[REDIS_SCRIPT_COUNT][41];
    size_t loading;     /* scripts whose hash isn't known yet */
    size_t next_loaded; /* whose hash the next answer brings */
    int load_error;
    /* With an error: on_loaded's caller decides what becomes of the connection. */
    void (*on_loaded)(void *data, int error, const struct redis_reply *reply);
    void *data;
    size_t in_flight;          /* calls that wait for their reply */
    bool forgotten;            /* NOSCRIPT was met: calls are held until those in flight have answered */
    struct list refused, held; /* calls to be sent again, and after them those made meanwhile */
};

void redis_scripts_init(struct redis_scripts *scripts, struct redis_conn *conn);

/* Loads all scripts over the connection just opened. 0 or an error; then on_loaded isn't called. */
int redis_scripts_load(struct redis_scripts *scripts,
                       void (*on_loaded)(void *data, int error, const struct redis_reply *reply), void *data)
    __attribute__((warn_unused_result));

/* Calls a script with one key. As redis_conn_command(). */
int redis_script_call(struct redis_scripts *scripts, enum redis_script script, struct slice key,
                      const struct slice *args, size_t count, redis_on_reply *on_reply, void *data)
    __attribute__((warn_unused_result));

/* The same for several keys of one slot, which stand before the arguments in `args`. */
int redis_script_call_keys(struct redis_scripts *scripts, enum redis_script script, size_t key_count,
                           const struct slice *args, size_t count, redis_on_reply *on_reply, void *data)
    __attribute__((warn_unused_result));

/* The connection ended: fails what is held. */
void redis_scripts_drop(struct redis_scripts *scripts, int error);

#endif
