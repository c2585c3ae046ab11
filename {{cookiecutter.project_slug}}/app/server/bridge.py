"""Flask as an ASGI application: a request has a thread of a pool, from its head to its last byte.

a2wsgi does the same. Why it is not used: docs/decisions/worker-class-asgi.md.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from inspect import unwrap
from queue import SimpleQueue
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit


class Bridge:
    """The ASGI application around `app`, which is WSGI; each request makes one `Exchange`."""

    def __init__(self, app: Any, threads: int) -> None:
        self.app = app
        # As Python makes it: Sentry copies what it knows of the caller for every task of any pool.
        self.submit = partial(unwrap(ThreadPoolExecutor.submit), ThreadPoolExecutor(threads, "request"))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await Exchange(self.app, make_environ(scope, receive)).run(self.submit, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})


def make_environ(scope: Any, receive: Any) -> dict[str, Any]:
    """WSGI's word for `scope`. A header with an underscore is left out: it would pass for the one with a hyphen."""
    path, server, client = scope["raw_path"], scope["server"], scope["client"]
    if not path.startswith(b"/"):
        path = urlsplit(path).path  # of a whole URL, as a proxy is asked
    if not server or not isinstance(server[1], int):
        server = ("localhost", 80)  # a Unix socket: Gunicorn says the first two letters of its path
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "RAW_URI": scope["raw_path"].decode("latin-1"),
        "REMOTE_ADDR": client[0] if client else "",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BufferedReader(Body(receive)),
        "wsgi.input_terminated": True,  # it ends where the body does, also of one in chunks
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if b"_" not in name:
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


class Body(io.RawIOBase):
    """The body of a request, for its thread to read: the loop is asked for each piece."""

    def __init__(self, receive: Any) -> None:
        self.receive, self.loop = receive, asyncio.get_running_loop()
        self.rest, self.more = memoryview(b""), True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self.more and not self.rest:
            message = asyncio.run_coroutine_threadsafe(self.receive(), self.loop).result()
            if message["type"] == "http.disconnect":
                raise ConnectionAbortedError("The client went away in the middle of its request.")
            self.rest, self.more = memoryview(message.get("body", b"")), message.get("more_body", False)
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


class Exchange:
    """A request and its response, between a thread and the loop."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.app, self.environ, self.loop = app, environ, asyncio.get_running_loop()
        self.messages: asyncio.Queue[list[Any] | None] = asyncio.Queue()  # of the thread; None is its end
        self.sent: SimpleQueue[None] = SimpleQueue()  # to the thread, for each of them
        self.head: list[Any] = []  # the response's start, until there is something to send with it
        self.left = -1  # bytes to come, if the response says how many
        self.gone = False  # the client
        self.error: BaseException | None = None

    async def run(self, submit: Callable[..., Any], send: Any) -> None:
        """Have a thread answer, and send what it says. This lasts for as long as it has the thread, come what may."""
        submit(copy_context().run, self.answer)
        messages: list[Any] | None = []
        try:
            while messages is not None:
                try:
                    messages = await self.messages.get()
                    for message in messages or ():
                        if not self.gone:
                            await send(message)
                except OSError:
                    self.gone = True
                except (Exception, asyncio.CancelledError) as error:
                    self.gone, self.error = True, error
                self.sent.put(None)
        finally:  # also where a signal ends the worker right here: the thread must not wait for what never comes
            self.gone = True
            self.sent.put(None)
        if self.error is not None:
            raise self.error

    def answer(self) -> None:
        try:
            body = self.app(self.environ, self.start_response)
            try:
                for chunk in body:
                    self.write(chunk)
                    if self.gone:
                        break
                if self.left or self.head:
                    self.post(b"", last=True)
            finally:
                if hasattr(body, "close"):
                    body.close()
        except BaseException as error:  # a view that exits ends its request, not the server
            self.error = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self.loop.call_soon_threadsafe(self.messages.put_nowait, None)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.head = [{"type": "http.response.start", "status": int(status[:3]), "headers": pairs}]
        self.left = int(dict(pairs).get(b"content-length", -1))
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a piece and wait until it is on its way; the last one is not waited for."""
        if chunk and self.left:
            self.left -= len(chunk)
            self.post(chunk, last=self.left == 0)
            if self.left:
                self.sent.get()

    def post(self, chunk: bytes, last: bool) -> None:
        messages = [*self.head, {"type": "http.response.body", "body": chunk, "more_body": not last}]
        self.head = []
        self.loop.call_soon_threadsafe(self.messages.put_nowait, messages)
