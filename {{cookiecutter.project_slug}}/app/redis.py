"""Redis: one client for sessions, cache and limits, none of which may take a request down with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis import TimeoutError as RedisTimeoutError
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError
from redis.retry import Retry

from app.breaker import Breaker, Down
from app.settings import ANSWERS

T = TypeVar("T")
# Seconds to connect, and for a command. A request makes four round trips: its session is read and written, its limit
# and its cache take one each (a value that has to be computed one more). A Redis just not slow enough to be taken for
# down then costs it 0.24 s; one that is slower costs it one timeout, and the breaker spares it the others.
# One that is far away gets more by REDIS_URL: redis://host/0?socket_timeout=0.2&socket_connect_timeout=0.2
TIMEOUT = 0.06
QUIET = 60.0  # seconds between two lines about commands that Redis refuses
FAILURES = (RedisConnectionError, RedisTimeoutError)
log = logging.getLogger(__name__)


class Guard(Retry):
    """How redis-py runs every command and connect: here never twice, and not at all while the breaker is open."""

    def __init__(self, breaker: Breaker) -> None:
        # After a failover the former primary takes no writes; a new connection finds the present one.
        super().__init__(NoBackoff(), 0, (*FAILURES, ReadOnlyError))
        self.breaker, self.told = breaker, -QUIET

    def __deepcopy__(self, _memo: object) -> Guard:
        return self  # each connection would have a breaker of its own

    def call_with_retry(self, do: Callable[[], T], fail: Callable[..., Any], *args: Any, **options: Any) -> T:
        try:
            self.breaker.check()
        except Down as error:
            raise RedisConnectionError(str(error)) from None
        try:
            return super().call_with_retry(do, fail, *args, **options)
        except FAILURES as error:
            self.breaker.trip(error)
            raise
        except ResponseError as error:
            self.tell(error)
            raise

    def tell(self, error: ResponseError) -> None:
        """Log what Redis refuses (it is full, or a copy), for nobody else does; a script it forgot is sent again."""
        if not isinstance(error, NoScriptError) and time.monotonic() - self.told > QUIET:
            self.told = time.monotonic()
            log.warning("redis refuses: %s", error)


def init_app(app: Flask, url: str) -> None:
    """Make the client, `app.extensions["redis"]`, and its breaker; nothing connects yet."""
    options: dict[str, Any] = {
        "socket_connect_timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "client_name": ANSWERS["slug"],
        "driver_info": None,  # to tell Redis its name and version, redis-py makes two more round trips a connection
    }
    plain = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    breaker = Breaker("redis", plain.ping)
    app.extensions["redis"] = Redis.from_url(url, retry=Guard(breaker), **options)
    app.extensions["breakers"].append(breaker)
