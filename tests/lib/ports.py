"""Free ports, for test processes that run at the same time.

They come from below the range that the kernel gives to outgoing connections, so none of those takes one between choice
and use. Each test process locks a block of the range for as long as it lives: brokers share ports (SO_REUSEPORT), so
two tests with the same one would not even notice.
"""

import errno
import fcntl
import os
import socket
import stat
import tempfile

FIRST, BLOCK, BLOCKS = 20000, 120, 100

_lock = None
_block = None
_next = 0


def _take_block():
    global _lock, _block
    folder = os.path.join(tempfile.gettempdir(), f"switchboard-test-ports-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    # The name can be guessed: what somebody else put there is not ours to open.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise RuntimeError(f"{folder} is not a directory that only this user can write to")
    for i in range(BLOCKS):
        # Not the same blocks first each time: what an earlier run left in TIME_WAIT is then out of the way.
        number = (os.getpid() + i) % BLOCKS
        fd = os.open(os.path.join(folder, str(number)), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        _lock, _block = fd, FIRST + number * BLOCK
        return
    raise RuntimeError("all blocks of ports are taken")


def _is_free(port):
    with socket.socket(socket.AF_INET6) as probe:
        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("::", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port():
    """A port that nobody listens on, on any address; not given again until all others of the block were."""
    global _next
    if _block is None:
        _take_block()
    for _ in range(BLOCK):
        port = _block + _next
        _next = (_next + 1) % BLOCK
        if _is_free(port):
            return port
    raise RuntimeError("no free port left")
