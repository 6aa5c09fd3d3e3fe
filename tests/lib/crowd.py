"""Thousands of WebSocket connections that only sit there."""

import errno
import resource
import select
import socket

from .paths import PATIENCE
from .waiting import Timeout

_WINDOW = 200  # handshakes at once: well below any listener's backlog


def _raise_fd_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Crowd:
    """Connects to `path(i)` for each i below `count`, and has shaken hands with all when the block begins; nothing
    is read or sent from then on."""

    def __init__(self, port, path, count, timeout=PATIENCE):
        self.port, self.path, self.count, self.timeout = port, path, count, timeout
        self.sockets = []

    def _request(self, number):
        return (f"GET {self.path(number)} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()

    def _start(self, number, waiting, poll):
        one = socket.socket()
        one.setblocking(False)
        self.sockets.append(one)
        code = one.connect_ex(("127.0.0.1", self.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, errno.errorcode[code])
        waiting[one.fileno()] = (one, number)
        poll.register(one, select.EPOLLOUT)

    def _advance(self, fd, events, waiting, answers, poll):
        one, number = waiting[fd]
        if events & select.EPOLLOUT:
            one.send(self._request(number))
            poll.modify(one, select.EPOLLIN)
            return
        answers[fd] = answers.get(fd, b"") + one.recv(4096)
        if b"\r\n\r\n" not in answers[fd]:
            assert answers[fd], "the connection ended instead of the handshake"
            return
        assert answers.pop(fd).startswith(b"HTTP/1.1 101 "), "refused"
        poll.unregister(one)
        del waiting[fd]

    def __enter__(self):
        _raise_fd_limit()
        waiting, answers, started = {}, {}, 0
        try:
            with select.epoll() as poll:
                while started < self.count or waiting:
                    while started < self.count and len(waiting) < _WINDOW:
                        self._start(started, waiting, poll)
                        started += 1
                    ready = poll.poll(self.timeout)
                    if not ready:
                        raise Timeout(f"{len(waiting)} of {self.count} handshakes were not answered")
                    for fd, events in ready:
                        self._advance(fd, events, waiting, answers, poll)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for one in self.sockets:
            one.close()
        self.sockets.clear()
