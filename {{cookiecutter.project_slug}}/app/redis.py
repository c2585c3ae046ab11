"""Redis: one client for sessions, cache and limits, none of which may take a request down with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis import TimeoutError as RedisTimeoutError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.breaker import Breaker, Down
from app.settings import ANSWERS

T = TypeVar("T")
TIMEOUT = 0.1  # seconds to connect, and for a command: a cache slower than that is none


class Guard(Retry):
    """How redis-py runs every command and connect: here never twice, and not at all while the breaker is open."""

    def __init__(self, breaker: Breaker) -> None:
        super().__init__(NoBackoff(), 0)
        self.breaker = breaker

    def __deepcopy__(self, _memo: object) -> Guard:
        return self  # each connection would have a breaker of its own

    def call_with_retry(self, do: Callable[[], T], fail: Callable[..., Any], *args: Any, **options: Any) -> T:
        try:
            self.breaker.check()
        except Down as error:
            raise RedisConnectionError(str(error)) from None
        try:
            return super().call_with_retry(do, fail, *args, **options)
        except (RedisConnectionError, RedisTimeoutError) as error:
            self.breaker.trip(error)
            raise


def init_app(app: Flask, url: str) -> None:
    """Make the client, `app.extensions["redis"]`, and its breaker; nothing connects yet."""
    options: dict[str, Any] = {
        "socket_connect_timeout": TIMEOUT,
        "socket_timeout": TIMEOUT,
        "client_name": ANSWERS["slug"],
    }
    plain = Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    breaker = Breaker("redis", plain.ping)
    app.extensions["redis"] = Redis.from_url(url, retry=Guard(breaker), **options)
    app.extensions["breakers"].append(breaker)
