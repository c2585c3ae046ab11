"""sync: one request at a time; for work that keeps a CPU busy."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from gunicorn.workers.sync import SyncWorker

from app.observability.metrics import THREADS_BUSY
from app.server.workers import TakesSignals, backlog, close_listeners, drained


class Worker(TakesSignals, SyncWorker):  # type: ignore[misc]
    """One request at a time."""

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        THREADS_BUSY.inc()
        try:
            super().handle(listener, client, addr)
        finally:
            THREADS_BUSY.dec()

    def wait(self, timeout: float) -> Any:
        """Wait a second at most, to notice a master that was killed."""
        return super().wait(min(timeout, 1.0))

    def run(self) -> None:
        super().run()
        began = time.monotonic()
        while not drained(self, time.monotonic() - began):
            for listener in backlog(self, wait=0.05):
                with suppress(BlockingIOError):  # another worker was quicker
                    self.accept(listener)
            self.notify()
        close_listeners(self)
