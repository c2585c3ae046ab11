"""Flask as an ASGI application: a request has a thread of a pool, from its head to its last byte.

a2wsgi does the same and was tried: docs/decisions/worker-class-asgi.md says what it gets wrong.
"""

from __future__ import annotations

import asyncio
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class Bridge:
    """The ASGI application; each request makes one `Exchange`."""

    def __init__(self, app: WSGIApplication, threads: int) -> None:
        self.app = app
        self.pool = ThreadPoolExecutor(threads, "request")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] != "http":
            raise NotImplementedError(f"Flask has no use for {scope['type']}.")  # as ASGI wants it to be said
        else:
            await Exchange(self.app, make_environ(scope, receive)).run(self.pool, send)


def make_environ(scope: Any, receive: Any) -> dict[str, Any]:
    """What WSGI calls the request; a header with an underscore is dropped, it could pass for another's."""
    path, server = scope["raw_path"], scope["server"]
    if not path.startswith(b"/"):
        path = urlsplit(path).path  # of a whole URL, as proxies are asked
    if not server or not isinstance(server[1], int):
        server = ("localhost", 80)  # a Unix socket, of whose path Gunicorn takes the first two letters
    client = scope["client"] or ("", "")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "RAW_URI": scope["raw_path"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BufferedReader(Body(receive)),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        if b"_" not in name:
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


class Body(io.RawIOBase):
    """A request's body, for its thread to read: the loop is asked for each piece."""

    def __init__(self, receive: Any) -> None:
        self.receive, self.loop = receive, asyncio.get_running_loop()
        self.rest, self.more = memoryview(b""), True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self.more and not self.rest:
            message = asyncio.run_coroutine_threadsafe(self.receive(), self.loop).result()
            if message["type"] == "http.disconnect":
                raise ConnectionAbortedError("The client has gone.")
            self.rest, self.more = memoryview(message.get("body", b"")), message.get("more_body", False)
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


class Exchange:
    """One request and its response, between its thread and the loop."""

    def __init__(self, app: WSGIApplication, environ: dict[str, Any]) -> None:
        self.app, self.environ, self.loop = app, environ, asyncio.get_running_loop()
        self.messages: asyncio.Queue[list[Any] | None] = asyncio.Queue()  # from the thread; None is its end
        self.sent: SimpleQueue[None] = SimpleQueue()  # to the thread, for each piece
        self.head: list[Any] | None = []  # the response's start, which is sent with its first piece
        self.left = -1  # bytes to come, where the response says how many they are
        self.gone = False
        self.error: BaseException | None = None

    async def run(self, pool: ThreadPoolExecutor, send: Any) -> None:
        """Have a thread answer, and send what it says; this lasts as long as the thread is taken, come what may."""
        pool.submit(copy_context().run, self.answer)
        messages: list[Any] | None = []
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
                else:
                    if self.left or self.head is not None:
                        self.post(b"", last=True)
            finally:
                if hasattr(body, "close"):
                    body.close()
        except BaseException as error:  # a view that exits ends itself, and not the server
            self.error = error if isinstance(error, Exception) else RuntimeError(repr(error))
        self.loop.call_soon_threadsafe(self.messages.put_nowait, None)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if self.head is None and exc_info:
            raise exc_info[1]
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.head = [{"type": "http.response.start", "status": int(status[:3]), "headers": pairs}]
        self.left = int(dict(pairs).get(b"content-length", -1))
        return self.write

    def write(self, chunk: bytes) -> None:
        """Send a piece, and wait until it is on its way; not for the last one, which the client gets sooner so."""
        if chunk and self.left:
            self.left -= len(chunk)
            self.post(chunk, last=self.left == 0)
            if self.left:
                self.sent.get()

    def post(self, chunk: bytes, last: bool) -> None:
        messages = [*(self.head or ()), {"type": "http.response.body", "body": chunk, "more_body": not last}]
        self.head = None
        self.loop.call_soon_threadsafe(self.messages.put_nowait, messages)
