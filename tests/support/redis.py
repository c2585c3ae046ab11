"""A Redis server of the test's own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.packages import find
from support.service import free_port, wait_for


@dataclass
class Redis:
    """A Debian Redis that keeps nothing, with what it says in `folder`; a test may freeze, kill and start it again."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def patient_url(self) -> str:
        """For a test that is not about waiting: on a busy machine an answer may take longer than a service waits."""
        return f"{self.url}?socket_timeout=3&socket_connect_timeout=3"

    def start(self) -> None:
        command = [str(find("redis-server", "redis-server")), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        command += ["--logfile", str(self.folder / "redis.log")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_for(self._answers, "Redis answers")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)

    def freeze(self) -> None:
        """It answers nobody any more; the kernel still takes connections for it."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def ask(self, *command: str) -> str:
        """What a command gives, by redis-cli."""
        program = [str(find("redis-cli", "redis-tools")), "-p", str(self.port), *command]
        return subprocess.run(program, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.ask("ping") == "PONG"
        return False


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """A running Redis; it is gone afterwards."""
    server = Redis(folder, free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()
