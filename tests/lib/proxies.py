"""Load balancers in front of brokers, with the configurations of deploy/ so that these are what is tested."""

import os
import re
import shutil
import tempfile

from .paths import DEPLOY
from .http import request
from .ports import free_port
from .process import Process
from .waiting import wait_until


class Proxy(Process):
    """tls: a Certificate. An edit is a function from the configuration's text to another one."""

    program = None
    template = None

    def __init__(self, brokers, tls=None, edit=None):
        self.brokers = list(brokers)
        self.tls = tls
        self.edit = edit
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="sb-proxy-")
        self.config = os.path.join(self.folder, self.template)
        super().__init__(f"{self.program}:{self.port}", self._command())

    def start(self):
        text = self._configure((DEPLOY / self.template).read_text())
        with open(self.config, "w") as config:
            config.write(self.edit(text) if self.edit else text)
        super().start()
        wait_until(self._answers, f"{self.name} answers")
        return self

    def _answers(self):
        if not self.running:
            raise AssertionError(f"{self.name} ended at its start with {self.returncode}:\n{self.log_tail()}")
        try:
            return request(self.port, "/", timeout=2, tls=self.tls and self.tls.client_context).status == 200
        except OSError:
            return False

    def ws(self, path):
        return f"{'wss' if self.tls else 'ws'}://{'localhost' if self.tls else '127.0.0.1'}:{self.port}{path}"

    def request(self, path="/", **options):
        return request(self.port, path, **options)

    def __exit__(self, kind, error, trace):
        try:
            super().__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _servers(self, text, line):
        """The lines of servers replaced by ones made by line(number, broker)."""
        lines = "".join(line(n + 1, broker) + "\n" for n, broker in enumerate(self.brokers))
        text, count = re.subn(r"(^ *server [\w.:]+ [^{\n]*\n)+", lambda _: lines, text, flags=re.M)
        assert count == 1, f"{self.template} has {count} groups of server lines"
        return text


class HAProxy(Proxy):
    program = "haproxy"
    template = "haproxy.cfg"

    def _command(self):
        return ["haproxy", "-db", "-f", self.config]

    def _configure(self, text):
        tls = f" ssl crt {self.tls.both} alpn http/1.1" if self.tls else ""
        text, count = re.subn(r"^( *)bind .*$", rf"\g<1>bind 127.0.0.1:{self.port}{tls}", text, flags=re.M)
        assert count == 1
        return self._servers(text, lambda n, one: f"    server broker{n} 127.0.0.1:{one.port} port {one.api_port}")

    def stop(self):
        self.terminate()


class Nginx(Proxy):
    program = "nginx"
    template = "nginx.conf"

    def _command(self):
        return ["nginx", "-c", self.config, "-p", self.folder]

    def _configure(self, text):
        text = re.sub(r"^pid .*$", f"pid {self.folder}/nginx.pid;", text, flags=re.M)
        listen = f"listen 127.0.0.1:{self.port};"
        if self.tls:
            listen = (f"listen 127.0.0.1:{self.port} ssl; ssl_certificate {self.tls.cert}; "
                      f"ssl_certificate_key {self.tls.key};")
        text, count = re.subn(r"^( *)listen .*$", rf"\g<1>{listen}", text, flags=re.M)
        assert count == 1
        return self._servers(
            text, lambda n, one: f"        server 127.0.0.1:{one.port} max_fails=1 fail_timeout=2s;")

    def stop(self):
        assert self.terminate() == 0, f"{self.name} ended with {self.returncode}"
