/* Routes: which URL path holds which address, and what a plain message does there.
 *
 * A route is a section of the configuration:
 *
 *     [route /websocket/{relationId}/{userCode:int}]
 *     address    = session:{relationId}_{userCode}
 *     on_message = forward session:userSever_8080
 *     reply      = Got your message ({message}).Thanks !
 *
 * Routes live as long as the configuration they were read with, and never change. */
#ifndef BROKER_ROUTE_H
#define BROKER_ROUTE_H

#include "broker/template.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;
struct config;

#define ROUTE_PARAMS_MAX   8   /* parameters of one pattern */
#define ROUTE_SEGMENTS_MAX 16  /* segments of one pattern */
#define ROUTE_VALUE_MAX    255 /* bytes of one parameter, decoded */
#define ROUTE_PATH_MAX     8192

enum route_param_type { ROUTE_PARAM_STRING, ROUTE_PARAM_INT };

enum route_action {
    ROUTE_ACTION_IGNORE,  /* the message is dropped */
    ROUTE_ACTION_ECHO,    /* sent back as it came, text or binary */
    ROUTE_ACTION_PUBLISH, /* sent to `target`, text through `text` */
    ROUTE_ACTION_FORWARD  /* sent to `target` as it came */
};

struct route_segment {
    char *literal; /* owned; NULL: a parameter */
    size_t literal_len;
    size_t param; /* index into params */
};

struct route {
    char *pattern; /* owned, as written */
    char *origin;  /* owned: FILE:LINE of the section, for messages */
    struct route_segment segments[ROUTE_SEGMENTS_MAX];
    size_t segment_count;
    char *names[ROUTE_PARAMS_MAX]; /* owned */
    enum route_param_type types[ROUTE_PARAMS_MAX];
    size_t param_count;

    bool has_address; /* false: sessions here are anonymous */
    struct template address;
    enum route_action action;
    struct template target; /* the address of ROUTE_ACTION_PUBLISH and _FORWARD */
    struct template text;   /* what is published; plain when the message goes as it is */
    bool has_reply;
    struct template reply; /* sent to the sender of a text message after it was handed on */
    bool answers_next;     /* on_request = next-message: a plain session's next message answers a request */

    char **sources; /* owned: the values as written, one a key of the table of route keys; NULL: not given */
};

/* The parameters a path gave to a route. */
struct route_params {
    const struct route *route;
    uint8_t lengths[ROUTE_PARAMS_MAX];
    const char *text; /* the values, one after the other; not NUL-terminated */
};

struct route_match {
    struct route_params params; /* its text points into `storage` */
    char storage[ROUTE_PARAMS_MAX * ROUTE_VALUE_MAX];
    char problem[160]; /* ROUTE_BAD_PARAMETER: which, and what is allowed; fit for the response */
};

enum route_result {
    ROUTE_OK,
    ROUTE_NOT_FOUND,    /* 404 */
    ROUTE_BAD_PARAMETER /* 400 */
};

/* Finds the route of `path`, which is as the client sent it, and is tried as it is and without each configured prefix; a
 * doubled leading slash counts as one. Literal segments win over parameters, the leftmost deciding. A query is cut off, and
 * segments are percent-decoded after they were split, so %2F stays data. */
enum route_result route_match(const struct config *config, const char *path, size_t len, struct route_match *out);

/* Copies the parameters into one block, to keep for the life of a session; freed with mem_free(). The caller
 * keeps the configuration referenced as long. NULL when memory is short. */
struct route_params *route_params_keep(const struct route_params *params);

/* The value of parameter `name`, or {NULL, 0}. */
struct slice route_param(const struct route_params *params, const char *name);

/* Appends the address the session holds, like "user:admin"; nothing for a route without one. After a match it
 * is a valid address. False when the buffer had no room. */
bool route_address(const struct route_params *params, struct buffer *out);

/* Appends the address messages of this session go to; only for ROUTE_ACTION_PUBLISH and _FORWARD. */
bool route_target(const struct route_params *params, struct buffer *out);

/* Appends `template` (the route's text or reply) expanded with the parameters and a text message. Binary
 * messages are never expanded: they are passed on as they are, and are not replied to. */
bool route_expand(const struct template *template, const struct route_params *params, const char *message,
                  size_t len, struct buffer *out);

/* --- For the configuration
 * ------------------------------------------------------------------------------------- */

/* One key of a [route] section. */
struct route_key {
    const char *key;
    const char *form; /* what its value looks like */
    const char *help;
    bool (*parse)(struct route *route, const char *value, char *problem, size_t problem_size);
};

extern const struct route_key route_keys[];
extern const size_t route_key_count;

/* Makes a route from its pattern; NULL with `problem` set when the pattern is wrong. */
struct route *route_create(const char *pattern, const char *origin, char *problem, size_t problem_size);
void route_destroy(struct route *route);

/* Sets one key; false with `problem` set. Each key is set at most once. */
bool route_set(struct route *route, const struct route_key *key, const char *value, char *problem,
               size_t problem_size);

/* Checks what concerns several keys, once all are set. */
bool route_finish(const struct route *route, char *problem, size_t problem_size);

/* True when both patterns match the same paths, whatever their parameters are called. */
bool route_same_paths(const struct route *a, const struct route *b);

#endif
