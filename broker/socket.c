#include "broker/socket.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct socket_progress socket_progress(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return (struct socket_progress){0};
    /* Linux 5.4 and later tell the window; before, it stays 0, and only what is acknowledged shows. */
    return (struct socket_progress){.acked = info.tcpi_bytes_acked,
                                    .edge = info.tcpi_bytes_acked + info.tcpi_snd_wnd};
}

size_t socket_unacked(int fd)
{
    int bytes = 0;

    return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (size_t)bytes : 0;
}

static void bound(int fd, int option, size_t size)
{
    int bytes = (int)size;

    if (size)
        setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
}

void socket_bound(int fd, size_t send, size_t receive)
{
    bound(fd, SO_SNDBUF, send);
    bound(fd, SO_RCVBUF, receive);
}

void socket_give_up_after(int fd, uint64_t ms)
{
    unsigned timeout = (unsigned)ms;

    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

void socket_reset_on_close(int fd)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

/* Not by shutdown(2), which ws_stream.h defines for libwebsockets. */
void socket_cut_off(int fd)
{
    syscall(SYS_shutdown, fd, SHUT_RDWR);
}
