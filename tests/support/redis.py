"""A Redis server of the test's own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.packages import find
from support.service import free_port, wait_for


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The URL of a Debian Redis that keeps nothing, with what it says in `folder`; it is gone afterwards."""
    port = free_port()
    command = [str(find("redis-server", "redis-server")), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder), "--logfile", str(folder / "redis.log")]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
        return False

    try:
        wait_for(answers, "Redis answers")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
