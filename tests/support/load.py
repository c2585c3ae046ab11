"""Requests that go on while a server stops: what happened to each of them is known."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Load:
    """Some clients that open a connection a request and some that keep theirs, until `total` requests were tried.

    Attributes:
        patience: seconds to wait for a connection, and for each part of an answer.
        outcomes: how many requests were "answered", "refused" (no connection was made) or "lost" (it was made and
            no whole answer came), and under "close" how many answers said `Connection: close` to a kept connection.
    """

    port: int
    total: int = 500
    clients: int = 8
    path: str = "/api/items"
    host: str = "127.0.0.1"
    patience: float = 30.0
    pause: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._left = self.total
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 1,)) for number in range(self.clients)]

    def start(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def wait(self, seconds: float = 60) -> Load:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), f"requests hang: {self.outcomes}"
        return self

    def end(self) -> Load:
        """Try no more; what is in flight is waited for."""
        with self._lock:
            self._left = 0
        return self.wait()

    def wait_for_answers(self, count: int, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while self.outcomes["answered"] < count:
            assert time.monotonic() < deadline, f"too few answers: {self.outcomes}"
            time.sleep(0.002)

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _count(self, outcome: str, reason: str = "") -> None:
        with self._lock:
            self.outcomes[outcome] += 1
            if reason:
                self.losses.append(reason)

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.patience)
        connection.connect()
        return connection

    def _run(self, keep: bool) -> None:
        connection: http.client.HTTPConnection | None = None
        while self._take():
            if connection is None:
                try:
                    connection = self._connect()
                except OSError:
                    self._count("refused")
                    time.sleep(0.01)
                    continue
            try:
                connection.request("GET", self.path, headers={} if keep else {"Connection": "close"})
                response = connection.getresponse()
                response.read()
                self._count("answered" if response.status == 200 else f"status {response.status}")
                if keep and response.will_close:
                    self._count("close")
                ended = not keep or response.will_close
            except (OSError, http.client.HTTPException) as error:
                self._count("lost", f"{'kept' if keep else 'fresh'}: {error!r}")
                ended = True
            if ended:
                connection.close()
                connection = None
            time.sleep(self.pause)
        if connection is not None:
            connection.close()
