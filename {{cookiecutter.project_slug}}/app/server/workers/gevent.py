"""gevent: many requests that wait for others at a time, a greenlet each.

`gunicorn.conf.py` has patched the standard library by the time this is imported.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.socket import socket as Socket
from gevent.socket import wait_read
from gunicorn.workers.ggevent import GeventWorker

from app.observability.metrics import THREADS_BUSY
from app.server.workers import TakesSignals, close_listeners, drained, hangs

LINGER = 2.0  # seconds for a client to read its answer and close


class Connection(Socket):  # type: ignore[misc]
    """A client's connection.

    Attributes:
        silent: a request is waited for, and nothing of it has come.
    """

    silent = False

    def recv(self, *args: Any) -> bytes:
        data: bytes = super().recv(*args)
        self.silent = False
        return data

    def close(self) -> None:
        """Let the client close first: closing before all that it sends is read would reset the answer on its way."""
        with suppress(OSError), gevent.Timeout(LINGER, False):
            self.shutdown(socket.SHUT_WR)
            while super().recv(65536):
                pass
        super().close()


def in_thread(view: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Run an `async def` view in a thread of the system's, which has one event loop at a time; greenlets share theirs."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return gevent.get_hub().threadpool.apply(copy_context().run, (asyncio.run, view(*args, **kwargs)))

    return run


class Worker(TakesSignals, GeventWorker):  # type: ignore[misc]
    """A greenlet for each connection, of which `threads` may be in a request; the others wait for one, or for a slot."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots = BoundedSemaphore(self.cfg.threads)
        self.connections = Group()  # of greenlets, each with its `client`
        self.began: dict[Any, float] = {}  # greenlet: when its request did, of the monotonic clock

    def load_wsgi(self) -> None:
        super().load_wsgi()
        gevent.get_hub().threadpool.maxsize = self.cfg.threads
        self.wsgi.async_to_sync = in_thread

    def run(self) -> None:
        acceptors = [gevent.spawn(self.accept_from, listener) for listener in self.sockets]
        while self.alive:
            self.notify()
            if select.select([self.PIPE[0]], [], [], 1.0)[0]:  # a signal came; Gunicorn's worker would sleep on
                os.read(self.PIPE[0], 4096)
        began = time.monotonic()
        while not drained(self, time.monotonic() - began, not self.slots.locked()):
            self.notify()
            gevent.sleep(0.05)
        gevent.killall(acceptors)
        close_listeners(self)
        while self.connections and time.monotonic() - began < self.cfg.graceful_timeout:
            self.notify()
            self.hang_up()
            self.connections.join(0.05)

    def accept_from(self, listener: Any) -> None:
        """Take connections while a slot is free; idle ones hold none."""
        listener.setblocking(False)
        while True:
            wait_read(listener.fileno())
            while self.slots.locked():
                self.slots.wait()
            try:
                client, address = listener.accept()
            except OSError:  # another worker was quicker, or there is no descriptor left
                gevent.sleep(0.01)
                continue
            client = Connection(client.family, client.type, client.proto, fileno=client.detach())
            self.connections.spawn(self.handle, listener, client, address).client = client
            gevent.sleep(0)  # it takes its slot before the next one is accepted

    def hang_up(self) -> None:
        """End the connections on which nothing comes. What has come by now can still be read, and is answered."""
        gevent.sleep(0)  # whoever was told that there is something to read has read it
        for greenlet in self.connections:
            if greenlet.client.silent:
                with suppress(OSError):
                    greenlet.client.shutdown(socket.SHUT_RD)

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """The wait for the next request of a connection."""
        gevent.getcurrent().client.silent = True
        with super().timeout_ctx():
            yield

    def handle_request(self, *args: Any) -> None:
        with self.slots:
            self.began[gevent.getcurrent()] = time.monotonic()
            THREADS_BUSY.inc()
            try:
                super().handle_request(*args)
            finally:
                THREADS_BUSY.dec()
                del self.began[gevent.getcurrent()]

    def notify(self) -> None:
        """Show the master that this worker lives, unless every slot is stuck; end with the master."""
        if self.ppid != os.getppid() or not hangs(self):
            super().notify()

    def handle_abort(self, sig: int, frame: Any) -> None:
        """End the worker too, not only the request that blocks the loop: there Gunicorn would swallow the exit."""
        hub = gevent.get_hub()
        hub.loop.run_callback(hub.parent.throw, SystemExit(1))
        super().handle_abort(sig, frame)

    def stacks(self) -> list[str]:
        """Where each request is; the greenlet that runs is in the stack of its thread."""
        frames = [greenlet.gr_frame for greenlet in self.began]
        return [*super().stacks(), *("".join(traceback.format_stack(frame)) for frame in frames if frame)]
