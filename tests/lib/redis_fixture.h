/* A redis-server of the test's own, on a free port of the loopback interface, with nothing kept on disk. */
#ifndef TESTS_LIB_REDIS_FIXTURE_H
#define TESTS_LIB_REDIS_FIXTURE_H

#include <stdbool.h>
#include <sys/types.h>

struct redis_fixture {
    pid_t pid; /* 0: not running */
    int port;
    int output; /* the server's standard output */
};

/* Starts a server on a free port and waits until it accepts connections. False, with a message on standard
 * error, when that fails. The server dies with the test, however that ends. */
bool redis_fixture_start(struct redis_fixture *redis) __attribute__((warn_unused_result));

/* Starts an empty server again on the port that it had before redis_fixture_kill(). */
bool redis_fixture_restart(struct redis_fixture *redis) __attribute__((warn_unused_result));

void redis_fixture_kill(struct redis_fixture *redis);   /* as a crash does; may be running or not */
void redis_fixture_pause(struct redis_fixture *redis);  /* keeps its connections, answers nothing */
void redis_fixture_resume(struct redis_fixture *redis); /* answers what came meanwhile */

#endif
