"""Leave a dependency alone while it is down, so that requests do not wait for it one after the other.

The first failure opens the breaker: calls fail at once. One thread asks at once, then every second, until it is
answered, and closes it. So one lost connection or slow answer costs the others a moment, and nobody is told.
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
        on_change: called with that error when the dependency does not answer, and with "" when it answers again,
            once at each change.
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
        threading.Thread(target=self._wait_until_up, daemon=True, name=f"wait for {self.name}").start()

    def _wait_until_up(self) -> None:
        told = False
        while not self._answers():
            if not told:
                self.on_change(self.error)
                told = True
            time.sleep(PAUSE)
        self.error = ""
        if told:
            self.on_change("")

    def _answers(self) -> bool:
        try:
            self.ask()
        except Exception:  # whatever it throws, it is down
            return False
        return True
