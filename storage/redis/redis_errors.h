/* What an error reply of Redis means for the request that met it. */
#ifndef STORAGE_REDIS_ERRORS_H
#define STORAGE_REDIS_ERRORS_H

#include "storage/redis/redis_reply.h"

/* The reply as an error of proto/errors.h; logged, at most once a second. NOSCRIPT isn't logged: it is
 * answered by sending the script. */
int redis_error_map(const struct redis_reply *reply);

/* Whether the server can serve nobody for now (it loads its data, became a replica, wants a login), so that
 * connecting anew is the cure. */
bool redis_error_ends(const struct redis_reply *reply);

#endif
