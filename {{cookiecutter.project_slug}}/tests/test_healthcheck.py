"""The image's health check, against servers that are well and that are not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import healthcheck

Serve = Callable[[bytes], int]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck, "TIMEOUT", 0.2)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(answer)` is the port of a server that says this to its first client, and then nothing more."""
    opened = []

    def serve(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        opened.append(listener)

        def speak() -> None:
            client, _ = listener.accept()
            opened.append(client)
            client.recv(65536)
            client.sendall(answer)

        threading.Thread(target=speak, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield serve
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 301 Moved\r\nLocation: /healthz/live\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 1),
        (b"HTTP/1.1 200", 1),
        (b"220 smtp.example.com\r\n\r\n", 1),
        (b"", 1),
    ],
)
def test_only_200_is_well(serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: int) -> None:
    monkeypatch.setenv("GUNICORN_BIND", f"0.0.0.0:{serve(answer)}")
    assert healthcheck.main() == code


def test_nobody_at_the_port_is_not_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("GUNICORN_BIND", f"127.0.0.1:{port}")
    assert healthcheck.main() == 1
    assert "ConnectionRefusedError" in capsys.readouterr().out


@pytest.mark.parametrize("bind", ["127.0.0.1:{}", "0.0.0.0:{},unix:/run/app.sock", ":{}", "localhost:{}"])
def test_it_asks_where_the_server_listens(bind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with healthcheck.connect(bind.format(address[1])) as connection:
            assert connection.getpeername() == address


def test_it_asks_at_a_socket_file(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with healthcheck.connect(f"unix:{path}") as connection:
            assert connection.getpeername() == path


def test_it_asks_at_PORT_where_no_address_is_set(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUNICORN_BIND", raising=False)
    monkeypatch.setenv("PORT", str(serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
    assert healthcheck.main() == 0


def test_it_imports_nothing_of_the_service() -> None:
    ask = "import sys; from scripts import healthcheck; print([m for m in sys.modules if m.split('.')[0] in ('app', 'flask')])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
