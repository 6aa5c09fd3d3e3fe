/* What is asked of a client's TCP socket beyond reading and writing. */
#ifndef BROKER_SOCKET_H
#define BROKER_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How far a client has got with what was sent to it. Both only ever grow, and by nothing but the client's doing. */
struct socket_progress {
    uint64_t acked; /* bytes that its kernel has taken */
    uint64_t edge;  /* up to which byte its kernel is ready to take: beyond `acked` this moves when the client reads */
};

/* All zero for what is no TCP socket, or on a kernel that doesn't tell. */
struct socket_progress socket_progress(int fd);

/* Bytes that the client's kernel has not acknowledged. */
size_t socket_unacked(int fd);

/* Bounds what the kernel keeps in each direction; it takes twice what it is told, and no longer tunes by itself. 0: leaves it. */
void socket_bound(int fd, size_t send, size_t receive);

/* Once it is closed, the kernel goes on delivering what is left for so long, and then forgets it; by itself it would for minutes. */
void socket_give_up_after(int fd, uint64_t ms);

/* Closing it will reset the connection and free what is left in the kernel, instead of trying to deliver it. */
void socket_reset_on_close(int fd);

/* Whoever reads or writes on it fails from now on. */
void socket_cut_off(int fd);

#endif
