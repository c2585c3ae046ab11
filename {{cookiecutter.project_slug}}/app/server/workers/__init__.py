"""Gunicorn's workers, with what they lack for a stop that loses nothing and a wait that is shared fairly.

There is a module for each answer to `worker_class`, and only the chosen one is imported. What they share is here.

A stop begins with a drain: the worker goes on accepting, for the last moment behind a door that lets no
new connection in (`hooks.stop`), empties the backlog and closes its listener at once, then answers what it has.
Gunicorn's own workers leave the backlog to be reset by the kernel: up to twenty requests a stop. What a drain
answers carries `Connection: close`.
"""

from __future__ import annotations

import select
import signal
import time
from typing import Any

from app.capacity import SECONDS
from app.server.hooks import STOPS


def drained(worker: Any, seconds: float, free: bool = True) -> bool:
    """Whether a worker that began to drain `seconds` ago has taken all there was, or has no time left for more.

    Args:
        free: it could take a connection, were there one.
    """
    settled = seconds > SECONDS["drain"] + SECONDS["settle"] and free and not backlog(worker)
    return settled or seconds > worker.cfg.graceful_timeout


def backlog(worker: Any, wait: float = 0) -> list[Any]:
    """The listeners of `worker` on which a connection waits to be accepted, now or within `wait` seconds."""
    ready: list[Any] = select.select(worker.sockets, [], [], wait)[0]
    return ready


def close_listeners(worker: Any) -> None:
    """What connects from now on is refused, or goes to another worker."""
    for listener in worker.sockets:
        listener.close()
    worker.sockets = []


def hangs(worker: Any) -> bool:
    """Whether every thread of `worker` has been in one request for longer than the timeout.

    What shows the master that a worker lives runs on beside threads that hang, so this must be asked before.
    """
    began: list[float] = list(worker.began.values())
    return len(began) >= int(worker.cfg.threads) and time.monotonic() - max(began) > int(worker.cfg.timeout)


class TakesSignals:
    """A worker that takes signals safely: those held back while it was forked (`hooks.spawn_worker`), and two stops."""

    def init_signals(self) -> None:
        super().init_signals()  # type: ignore[misc]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Stop at once, and only once: a terminal and the master both say it, and the second would meet a held lock."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        super().handle_quit(sig, frame)  # type: ignore[misc]
