"""What the Python tests are written with: real servers on ports of their own, and clients.

    with Cluster(2) as cluster:
        with WsClient(cluster[0].ws("/websocket/bob")) as a, WsClient(cluster[1].ws("/websocket/bob")) as b:
            a.send("hi")
            assert b.recv() == "bob:hi"

Servers (RedisServer, Broker, Cluster, HAProxy, Nginx) and clients (WsClient, RawWs) are context managers: they are
ready when the block begins, and gone when it ends. Whatever waits has a deadline and raises Timeout.
"""

from .broker import Broker, Cluster, parse_log_line
from .crowd import Crowd
from .door import WAYS, Answer, Door, Wire, head, upgrade
from .http import Response, request
from .measure import cpu_seconds, fd_count, rss_bytes
from .paths import BINARY, PATIENCE, ROOT, SANITIZED, VALGRIND
from .ports import free_port
from .process import Process
from .proxies import HAProxy, Nginx
from .rawws import Frame, RawWs, frame
from .redis_server import RedisServer
from .structured import FACES, CommandError, StructuredClient
from .tls import Certificate
from .waiting import Timeout, wait_until
from .ws import Closed, Refused, WsClient, background

__all__ = [
    "Answer", "BINARY", "Broker", "Certificate", "Closed", "Cluster", "CommandError", "Crowd", "Door", "FACES", "Frame",
    "HAProxy", "Nginx", "PATIENCE", "Process", "ROOT", "RawWs", "RedisServer", "Refused", "Response", "SANITIZED",
    "StructuredClient", "Timeout", "VALGRIND", "WAYS", "Wire", "WsClient", "background", "cpu_seconds", "fd_count",
    "frame", "free_port", "head", "parse_log_line", "request", "rss_bytes", "upgrade", "wait_until",
]
