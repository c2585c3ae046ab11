"""nginx as compose.yaml starts it, alone; behind it, instead of the service, what does as a test tells it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.conftest import RUN, Builder, Stack, composed
from support.docker import Container
from support.load import Load
from support.service import wait_for
from support.standins import PINNED
from support.template import ROOT

UPSTREAM = (ROOT / "tests" / "support" / "upstream.py").read_text()
CONFIG = "/etc/nginx/service/nginx.conf"
# A certificate for localhost by an authority of this run's own, which tests then trust: as one gets from a real one.
CERTIFICATE = r"""
set -eu
umask 022
printf '%s\n' 'basicConstraints=critical,CA:TRUE' 'keyUsage=critical,keyCertSign' 'subjectKeyIdentifier=hash' >ca.ext
printf '%s\n' 'basicConstraints=critical,CA:FALSE' 'subjectAltName=DNS:localhost,IP:127.0.0.1' \
    'keyUsage=critical,digitalSignature' 'extendedKeyUsage=serverAuth' 'authorityKeyIdentifier=keyid' >leaf.ext
for name in ca leaf; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $name.key -subj /CN=$name -out $name.csr
done
openssl x509 -req -in ca.csr -signkey ca.key -days 80 -extfile ca.ext -out ca.pem
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 80 -extfile leaf.ext -out leaf.pem
cat leaf.pem ca.pem >fullchain.pem
"""


@dataclass
class Edge(Stack):
    """An nginx of its own. Its configuration is a copy, which a test may change for a while.

    Attributes:
        builder: knows the images.
        authority: the certificate that vouches for it.
    """

    builder: Builder
    authority: Path

    def connect(self, timeout: float = 20) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=context)
        connection.connect()
        return connection

    def open_socket(self, timeout: float = 20) -> ssl.SSLSocket:
        """A connection on which a test writes what it likes."""
        context = ssl.create_default_context(cafile=str(self.authority))
        plain = socket.create_connection(("localhost", self.port), timeout)
        return context.wrap_socket(plain, server_hostname="localhost")

    def say(self, sent: str) -> bytes:
        """All that comes back for these bytes."""
        with self.open_socket() as connection:
            connection.sendall(sent.encode("latin-1"))
            return read_all(connection)

    def plain(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        """An answer of the port without TLS."""
        connection = http.client.HTTPConnection("localhost", self.http_port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers={"Connection": "close", **(headers or {})})
            response = connection.getresponse()
            response.read()
            return response

    @property
    def nginx(self) -> Container:
        return Container(self.docker, f"{self.environ['COMPOSE_PROJECT_NAME']}-nginx-1")

    def log_lines(self, count: int) -> list[dict[str, Any]]:
        """The last of the access log; beside it nginx writes of its own doings."""
        lines = self.docker.run("logs", "--tail=50", self.nginx.name).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")][-count:]

    def check(self) -> subprocess.CompletedProcess[str]:
        """`nginx -t` there."""
        return self.docker.ask("exec", self.nginx.name, "nginx", "-c", CONFIG, "-t")

    def reload(self) -> None:
        """`nginx -s reload`, until none of the workers before takes connections any more."""
        assert (checked := self.check()).returncode == 0, checked.stderr
        before = self.workers()
        self.nginx.execute("nginx", "-c", CONFIG, "-s", "reload")
        wait_for(lambda: len(self.workers() - before) == len(before) and not self.workers() & before, "new workers")

    def workers(self) -> set[str]:
        """The workers that are not on their way out, by their ids on this machine, where the engine is."""
        master = self.nginx.state["State"]["Pid"]
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        titles = {child: Path(f"/proc/{child}/cmdline") for child in children}
        return {child for child, file in titles.items() if title(file) == "nginx: worker process"}

    @contextlib.contextmanager
    def changed(self, name: str, old: str, new: str) -> Iterator[None]:
        """One of the configuration's files with something replaced in it; a line at its end where `old` is empty."""
        path = self.folder / "deploy" / "nginx" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new) if old else f"{text}{new}\n")
        try:
            self.reload()
            yield
        finally:
            path.write_text(text)
            self.reload()

    @contextlib.contextmanager
    def upstream(self, **environ: str) -> Iterator[Container]:
        """One more address of `app`."""
        image = self.builder.images.find(PINNED.findall((self.folder / "Dockerfile").read_text())[0])
        options = [f"--network={self.environ['COMPOSE_PROJECT_NAME']}_edge", "--network-alias=app", "--user=10001"]
        options += [f"--env={name}={value}" for name, value in environ.items()]
        with self.docker.container(image, *options, command=("python", "-u", "-c", UPSTREAM)) as container:
            container.port = int(environ.get("PORT", "8000"))
            wait_for(lambda: "serves on" in container.output(), "the upstream listens")
            yield container

    def wait_for_upstream(self, condition: Callable[[dict[str, Any]], bool] = bool) -> None:
        """Until nginx has asked the resolver again, and an answer is as wanted."""

        def answers() -> bool:
            answer = self.get("/echo")
            return answer.status == 200 and condition(answer.json)

        wait_for(answers, "nginx finds the upstream")


@contextlib.contextmanager
def serve_edge(builder: Builder, folder: Path, scratch: Path) -> Iterator[Edge]:
    """The edge of the service in `folder`, which a copy is made of."""
    copy = shutil.copytree(folder, scratch / "service", symlinks=True)
    authority = scratch / "certificate"
    authority.mkdir()
    subprocess.run(["sh", "-c", CERTIFICATE], cwd=authority, check=True, capture_output=True)
    # One client asks for all of it here.
    limits = copy / "deploy" / "nginx" / "limits.conf"
    limits.write_text(re.sub(r"rate=\d+r/s", "rate=100000r/s", limits.read_text()))
    with composed(builder, copy, f"{RUN}-edge") as stack:
        edge = Edge(**vars(stack), builder=builder, authority=authority / "ca.pem")
        edge.compose("up", "--no-deps", "--detach", "--wait", "nginx")
        for file, name in (("fullchain.pem", "fullchain.pem"), ("leaf.key", "privkey.pem")):
            edge.docker.run("cp", authority / file, f"{edge.nginx.name}:/etc/nginx/tls/{name}")
        edge.reload()
        yield edge


def title(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text().rstrip("\0 ")
    return ""


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while part := connection.recv(2**16):
            found += part
    return found


class TlsLoad(Load):
    """Load on the edge."""

    edge: Edge

    def _connect(self) -> http.client.HTTPConnection:
        return self.edge.connect(self.patience)


def load(edge: Edge, total: int, path: str, clients: int = 8) -> TlsLoad:
    started = TlsLoad(edge.port, total=total, clients=clients, path=path)
    started.edge = edge
    started.start()
    return started
