"""The network between two hosts, on one host: what is sent arrives later."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Relay:
    """Passes on what comes to `port`, to `target` and back, `delay` seconds later: bytes, and that there are no more.

    On one host a close is known to the other side at once. Between two, each side may send on a connection that the
    other has just closed.

    Attributes:
        delay: may be changed while it runs.
        connections: how many were made to it.
    """

    def __init__(self, target: int, delay: float) -> None:
        self.target, self.delay, self.connections = target, delay, 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the connections, which those who made them have closed, the time to end."""
        self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def cut_off(self) -> None:
        """End at once, with the connections that are open."""
        for task in self._tasks:
            task.cancel()
        await self.__aexit__()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.append(asyncio.create_task(self._join(reader, writer)))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            with contextlib.suppress(OSError):  # a reset is an end, too
                while some := await reader.read(65536):
                    loop.call_later(self.delay, writer.write, some)
            await asyncio.sleep(self.delay)
        finally:
            writer.close()


@contextlib.contextmanager
def relaying(target: int) -> Iterator[Relay]:
    """A relay in a thread of its own, without delay at first; its end cuts off who still uses it."""
    relay = Relay(target, 0.0)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(relay.__aenter__(), loop).result(10)
        yield relay
        asyncio.run_coroutine_threadsafe(relay.cut_off(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
