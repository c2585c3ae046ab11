"""How limits are counted: Flask-Limiter, on the service's own Redis client, or in each worker where there is none."""

from __future__ import annotations

import threading
import time
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from flask import Flask, Response, after_this_request, g, request
from flask_limiter import HeaderNames, Limiter
from limits.storage import MemoryStorage, RedisStorage
from werkzeug.exceptions import ServiceUnavailable

from app.breaker import PAUSE
from app.settings import Settings

# KEYS: the counter. ARGV: how many, milliseconds of the window.
COUNT = """
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {count, redis.call('PTTL', KEYS[1])}
"""


class OneTrip(RedisStorage):
    """Redis asked once for each rate: Flask-Limiter counts, and then asks twice more for what it tells the client."""

    STORAGE_SCHEME = ["one-trip"]  # noqa: RUF012

    def initialize_storage(self, uri: str) -> None:
        super().initialize_storage(uri)
        self.count = self.storage.register_script(COUNT)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count, left = self.count([self.prefixed_key(key)], [amount, expiry * 1000])
        g.setdefault("_limits", {})[key] = count, time.time() + left / 1000
        return int(count)

    def get(self, key: str) -> int:
        return int(g._limits[key][0])

    def get_expiry(self, key: str) -> float:
        return float(g._limits[key][1])


class OneWorker(MemoryStorage):
    """Counts in memory, by one thread at a time.

    Two that count at once may both start the thread by which limits forgets old counts; one of them fails with that.
    """

    STORAGE_SCHEME = ["one-worker"]  # noqa: RUF012
    lock = threading.Lock()

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        with self.lock:
            return super().incr(key, expiry, amount)


class Limits:
    """Counts a request when called."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        redis = app.extensions.get("redis")
        self.failure: tuple[type[Exception], ...] = ()
        self.open = settings.ratelimit_failure == "open"
        options: dict[str, Any] = {}
        if redis is not None:
            from redis import RedisError

            self.failure, options = (RedisError,), {"connection_pool": redis.connection_pool}
        self.limiter = Limiter(
            find_client,
            storage_uri="one-worker://" if redis is None else "one-trip://",
            storage_options=options,
            strategy="fixed-window",
        )
        # Its hooks run in every request, so it gets an application of its own, which has none.
        self.limiter.init_app(Flask(__name__, static_folder=None))
        at_most = f"At most {settings.ratelimit_writes} from one client."
        limit = self.limiter.shared_limit(settings.ratelimit_writes, scope="writes", error_message=at_most)
        self.check = limit(lambda: None)

    def __call__(self) -> None:
        """Count this request.

        Raises:
            TooManyRequests: it is too much.
            ServiceUnavailable: Redis is down, and RATELIMIT_ON_FAILURE=closed.
        """
        after_this_request(self.tell)
        try:
            self.check()
        except self.failure:
            if not self.open:
                raise ServiceUnavailable(retry_after=int(PAUSE)) from None

    def tell(self, response: Response) -> Response:
        """Say in headers how much is left, and when there is more."""
        limit = self.limiter.current_limit
        if limit is not None:
            response.headers[HeaderNames.LIMIT.value] = str(limit.limit.amount)
            response.headers[HeaderNames.REMAINING.value] = str(limit.remaining)
            response.headers[HeaderNames.RESET.value] = str(limit.reset_at)
            if response.status_code == 429:
                response.headers["Retry-After"] = str(max(1, limit.reset_at - int(time.time())))
        return response


def init_app(app: Flask, settings: Settings) -> None:
    app.extensions["limits"] = Limits(app, settings)


def find_client() -> str:
    """The address that a client is counted by. Of IPv6 that is its /64, all of which one customer has."""
    address = request.remote_addr or "unknown"  # of a Unix socket that no proxy speaks for
    try:
        found = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))
