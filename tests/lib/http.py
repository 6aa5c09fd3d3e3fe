"""One HTTP request, without anything in between that would follow, retry or decode on its own."""

import http.client
import json as json_module

from .paths import PATIENCE


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # as http.client's: get() ignores case
        self.body = body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json_module.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:200]!r}>"


def request(port, path="/", method="GET", headers=None, body=None, json=None, host="127.0.0.1", timeout=PATIENCE,
            tls=None):
    headers = dict(headers or {})
    if json is not None:
        body = json_module.dumps(json).encode()
        headers.setdefault("Content-Type", "application/json")
    if tls is None:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return Response(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
