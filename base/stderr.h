/* Standard error, written without ever waiting for whoever reads it.
 *
 * O_NONBLOCK belongs to what was opened, not to a descriptor: set on standard error, it would change the shell's and every other
 * process's as well. So a pipe or a terminal is opened anew, for us alone; where that is not allowed, poll(2) tells before each
 * write whether it would block. A socket takes MSG_DONTWAIT. Files never block. */
#ifndef BASE_STDERR_H
#define BASE_STDERR_H

#include <stdbool.h>
#include <stddef.h>

enum { STDERR_LINE_MAX = 2048 }; /* at most PIPE_BUF: a pipe takes all of it or nothing */

/* Writes at most STDERR_LINE_MAX bytes. 0, or the errno that tells why nothing of them will be written; EAGAIN when the reader is
 * slow. What a terminal or a socket takes in pieces is finished later, before anything else. */
int stderr_write(const char *text, size_t len);

/* Writes what is left of a line that was begun. The same results. */
int stderr_flush(void);

/* Waits until something can be written, or `timeout_ms` have passed. */
void stderr_wait(int timeout_ms);

/* The descriptor whose being writable tells that stderr_write() is worth another try; -1: none. */
int stderr_fd(void);

#endif
