"""gthread: a few threads a worker; what nearly every service wants."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app.observability.metrics import THREADS_BUSY
from app.server.workers import TakesSignals, close_listeners, drained, hangs

CLOSING = object()  # what a thread returns of a connection that is to be closed
LINGER = 2.0  # seconds for a client to read its answer and close, as in Gunicorn


class Worker(TakesSignals, ThreadWorker):  # type: ignore[misc]
    """A thread pool that takes a new connection only while it has a free thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.began: dict[Any, float] = {}  # connection: when a thread took it, of the monotonic clock
        self.closing: deque[Any] = deque()  # connections whose clients have yet to close

    @property
    def worker_connections(self) -> int:
        """How many connections may be open before no more are accepted: idle ones do not count against threads.

        With a fixed number a quick request waits behind slow ones here while another worker is free.
        """
        idle = len(self.keepalived_conns) + len(self.pending_conns) + len(self.closing)
        return idle + int(self.cfg.threads)

    @worker_connections.setter
    def worker_connections(self, value: int) -> None:
        """Gunicorn sets it once from the configuration."""

    def handle(self, conn: Any) -> Any:
        self.began[conn] = time.monotonic()
        THREADS_BUSY.inc()
        try:
            return super().handle(conn) or CLOSING
        finally:
            THREADS_BUSY.dec()
            del self.began[conn]

    def notify(self) -> None:
        if not hangs(self):
            super().notify()

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Have the poller wait for the client to close; Gunicorn would, and accept nobody for up to 2 s each."""
        if fs.cancelled() or fs.exception() or fs.result() is not CLOSING:
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.read_rest, conn))
            conn.timeout = time.monotonic() + LINGER
            self.closing.append(conn)
        except (OSError, ValueError):  # it is closed already
            self.nr_conns -= 1
            conn.close()

    def read_rest(self, conn: Any, sock: Any) -> None:
        """Drop what the client still sends; closing before it is read would reset the answer on its way."""
        try:
            ended = not sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.end(conn)

    def end(self, conn: Any) -> None:
        self.closing.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        while self.closing and self.closing[0].timeout < time.monotonic():
            self.end(self.closing[0])

    def set_accept_enabled(self, enabled: bool) -> None:
        if not self.alive and self.sockets:
            self.drain()
        elif self.sockets:
            super().set_accept_enabled(enabled)

    def drain(self) -> None:
        began = time.monotonic()
        while not drained(self, time.monotonic() - began, free := self.nr_conns < self.worker_connections):
            super().set_accept_enabled(free)
            self.notify()
            self.wait_for_and_dispatch_events(timeout=0.05)
        super().set_accept_enabled(False)
        close_listeners(self)
