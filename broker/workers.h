/* Several broker processes behind one port (`workers`), started, watched and ended by a parent that does nothing else. */
#ifndef BROKER_WORKERS_H
#define BROKER_WORKERS_H

struct config;

/* Runs config->workers processes that each call `serve` with a number from 0; they share the listening port (SO_REUSEPORT). A
 * worker that dies is started again, after a pause that doubles with every quick death. SIGTERM and SIGINT are passed on and end all
 * of them, a second one at once; SIGHUP is passed on. Returns the exit status of the process: in the parent 0 when all workers
 * ended well, in a worker that of `serve`. */
int workers_run(struct config *config, int (*serve)(struct config *config, unsigned worker));

#endif
