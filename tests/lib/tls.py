"""A certificate for tests, made by openssl."""

import functools
import os
import shutil
import ssl
import subprocess
import tempfile


class Certificate:
    """Self-signed, for localhost and 127.0.0.1: .cert and .key are files, .client_context trusts just this one."""

    def __init__(self, names=("DNS:localhost", "IP:127.0.0.1")):
        self.folder = tempfile.mkdtemp(prefix="sb-tls-")
        self.cert = os.path.join(self.folder, "cert.pem")
        self.key = os.path.join(self.folder, "key.pem")
        self.both = os.path.join(self.folder, "both.pem")  # as HAProxy wants it
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=" + ",".join(names), "-keyout", self.key,
             "-out", self.cert], check=True, capture_output=True)
        with open(self.both, "w") as both:
            for part in (self.cert, self.key):
                with open(part) as text:
                    both.write(text.read())

    @functools.cached_property
    def client_context(self):
        return ssl.create_default_context(cafile=self.cert)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        shutil.rmtree(self.folder, ignore_errors=True)
