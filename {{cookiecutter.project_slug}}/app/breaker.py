"""Leave a dependency alone while it is down, so that requests do not wait for it one after the other.

The first failure opens the breaker: calls fail at once. One thread asks every second until it answers, and closes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PAUSE = 1.0  # seconds between two questions to what is down


class Down(ConnectionError):
    """What the breaker guards is down, and was not asked."""


class Breaker:
    """Whether one dependency is worth asking, in this process.

    Attributes:
        name: of the dependency.
        ask: returns if the dependency answers; raises, within a second or so, if not.
        error: what was wrong when it opened; empty while it is closed.
        on_change: called with that error, or "" when the dependency answers again, once at each change.
    """

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self.name, self.ask = name, ask
        self.error = ""
        self.on_change: Callable[[str], None] = lambda error: None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Pass while it is closed.

        Raises:
            Down: it is open.
        """
        if self.error:
            raise Down(f"{self.name} is down ({self.error})")

    def trip(self, error: BaseException) -> None:
        """Open it; a failure that was under way when it opened changes nothing."""
        with self._lock:
            if self.error:
                return
            self.error = type(error).__name__
        self.on_change(self.error)
        threading.Thread(target=self._wait_until_up, daemon=True, name=f"wait for {self.name}").start()

    def _wait_until_up(self) -> None:
        while True:
            time.sleep(PAUSE)
            try:
                self.ask()
            except Exception:  # noqa: S112  whatever it throws, it is down
                continue
            self.error = ""
            self.on_change("")
            return
