"""asgi: an event loop has the connections, and a pool of threads the requests.

Gunicorn's own worker takes every connection that comes, however many requests wait for a thread by then, and a stop
of it waits for connections that are idle.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers.base import Worker as Base
from gunicorn.workers.gasgi import ASGIWorker

from app.observability.metrics import THREADS_BUSY
from app.server.hooks import STOPS
from app.server.workers import TakesSignals, close_listeners, drained, hangs

LINGER = 2.0  # seconds for a client to read its answer and close, as in gthread
UNREAD = 65536  # bytes of a request that the application leaves unread and its connection survives, as in gthread


class Connection(ASGIProtocol):  # type: ignore[misc]
    """A connection, which has a thread for each request and none in between."""

    _closed: bool

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self.app = self.serve
        self.idle = True  # nothing of another request has come
        self.half_closed = False  # by the client, which may still read
        self.last = False  # the answer under way tells the client that it is

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application for a request, once there is a thread for it."""

        async def send_or_raise(message: Any) -> None:
            if self._closed:  # Gunicorn keeps quiet: a response without an end would go on for nobody
                raise ConnectionAbortedError("The client has gone.")
            if message["type"] == "http.response.start":
                self.last = worker.stopping
            await send(message)

        worker, request = self.worker, self._body_receiver
        worker.hand.add(send)
        worker.let_go(self)
        try:
            async with worker.threads:
                worker.began[send] = worker.loop.time()
                THREADS_BUSY.inc()
                try:
                    await worker.asgi(scope, receive, send_or_raise)
                finally:
                    THREADS_BUSY.dec()
                    del worker.began[send]
        finally:
            worker.let_go(send)
        with suppress(TimeoutError):  # else Gunicorn closes the connection with no word to the client before
            async with asyncio.timeout(LINGER):
                left = UNREAD
                while left > 0 and not (request._complete or self._closed):
                    left -= len((await receive()).get("body", b""))

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        self.worker.admit()
        self._arm_keepalive_timer()  # Gunicorn would wait for a first request for ever

    def data_received(self, data: bytes) -> None:
        self.idle = False
        super().data_received(data)
        if not self._request_ready.is_set():  # the rest of the head may take its time
            self.worker.let_go(self)

    def eof_received(self) -> bool:
        """Stay open for the answer if the client has said all of its request."""
        request = self._body_receiver
        self.half_closed = bool(request and request._complete and not self._closed)
        return self.half_closed

    def _will_close(self, *args: Any) -> bool:
        return self.last or bool(super()._will_close(*args))

    def _arm_keepalive_timer(self) -> None:
        self.idle = True
        super()._arm_keepalive_timer()
        if self.half_closed:
            self._keepalive_timeout()

    def _close_transport(self) -> None:
        """Close after the client: to close while it still sends would reset the answer on its way."""
        if not self._closed:
            self._closed = True
            self._callback_parser = None  # drops what still comes
            self._request_ready.set()
            self._resume_reading()
            self.worker.let_go(self)
            if self.idle or self.half_closed or not self.transport.can_write_eof():
                self.transport.close()
                return
            with suppress(OSError):
                self.transport.write_eof()
            self.worker.loop.call_later(LINGER, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.resume_writing()  # or a thread waits for a client that has gone
        self.worker.connections.discard(self)
        self.worker.let_go(self)


class Worker(TakesSignals, ASGIWorker):  # type: ignore[misc]
    """A loop that takes a new connection only while a thread is free."""

    max_requests: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Connection] = set()
        self.hand: set[Any] = set()  # requests that have or want a thread, and connections that bring one
        self.began: dict[Any, float] = {}  # request: when it had its thread, of the monotonic clock
        self.threads = asyncio.Semaphore(self.cfg.threads)
        self.changed = asyncio.Event()
        self.admitting = False
        # Gunicorn looks at `alive` and `max_requests` again when an answer is sent, and closes a connection whose client
        # was told that it stays: the next request on it is lost. So they stand still, and this is what changes.
        self.stopping = False
        self.limit = self.max_requests
        self.max_requests = sys.maxsize

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Gunicorn would warn that it has no use for threads."""

    def init_signals(self) -> None:
        """Take signals wherever the loop is; Gunicorn's handlers wait for their turn in it, which may never come."""
        Base.init_signals(self)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        self.loop.add_reader(self.PIPE[0], self.wake)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.stopping = True

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Exit in `wake`: an exit raised here could end any coroutine, and leave its thread to wait for good."""
        self._quick_shutdown = True

    def wake(self) -> None:
        os.read(self.PIPE[0], 4096)
        if self._quick_shutdown:
            super().handle_quit(signal.SIGQUIT, None)
        self.changed.set()

    def notify(self) -> None:
        if not hangs(self):
            super().notify()

    def accept(self, listener: Any) -> None:
        with suppress(OSError):  # another worker was quicker, or the client has gone again
            client, _ = listener.accept()
            connection = Connection(self)
            connection.making = self.loop.create_task(self.make(connection, client))
            client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            self.hand.add(connection)  # it says something, so it will want a thread
            self.admit()

    async def make(self, connection: Connection, client: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: connection, client, ssl=self.tls)
        except OSError:  # no TLS
            self.let_go(connection)

    def let_go(self, held: Any) -> None:
        self.hand.discard(held)
        self.admit()
        if self.stopping:
            self.changed.set()

    def admit(self) -> None:
        """Have the loop accept connections while a thread is free, and only then."""
        free = len(self.hand) < self.cfg.threads and len(self.connections) < self.worker_connections
        if free != self.admitting:
            self.admitting = free
            for listener in self.sockets:
                if free:
                    self.loop.add_reader(listener, self.accept, listener)
                else:
                    self.loop.remove_reader(listener)

    async def pause(self, seconds: float) -> None:
        """Wait for a signal, or while stopping for a connection or a request to end, but no longer than this."""
        self.notify()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        self.changed.clear()

    async def _serve(self) -> None:
        self.tls = self._get_ssl_context()
        self.admit()
        while not self.stopping and self.ppid == os.getppid():
            await self.pause(1.0)
            if self.nr >= self.limit:
                self.log.info("%s requests are enough; a new worker takes over.", self.nr)
                self.stopping = True
        self.stopping = True
        began = self.loop.time()
        while not drained(self, self.loop.time() - began, self.admitting):
            await self.pause(0.05)
        for listener in self.sockets:
            self.loop.remove_reader(listener)
        close_listeners(self)
        while (self.connections or self.hand) and self.loop.time() - began < self.cfg.graceful_timeout:
            self.close_idle()
            await self.pause(0.05)

    def close_idle(self) -> None:
        """Close the connections on which no request has come, nor lies unread."""
        idle = {c.transport.get_extra_info("socket").fileno(): c for c in self.connections if c.idle and not c._closed}
        unread = select.poll()
        for number in idle:
            unread.register(number, select.POLLIN)
        for number in idle.keys() - {number for number, _ in unread.poll(0)}:
            idle[number]._keepalive_timeout()
