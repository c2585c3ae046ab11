"""Values that are dear to compute, kept in Redis: `cache.get_or_compute("items:summary", 30, count_items)`.

Without Redis, and while it is down, they are computed every time; a caller never sees that it failed.

Of many callers at once, in whatever process, one computes and the others wait for what it finds. It holds a lease
meanwhile, and only who still holds it may keep its value. So what was computed before a write is never kept after it,
when the write is followed by `forget` (`@cache.forgets` above its view): that takes the lease away too.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import orjson
from flask import current_app

from app.serialize import to_json

JITTER = 0.1  # of the time to live, either way: values made together do not all run out together
LEASE = 10.0  # seconds; what takes longer to compute is not kept
WAIT = 5.0  # seconds that a caller waits for another one's value before it computes its own
POLL = 0.05  # seconds between two looks
TAKEN, OURS = 0, 1

# Whoever finds nothing gets the lease in the same step: between two, another one could store what it found.
# KEYS: value, lease. ARGV: token, milliseconds.
TAKE = """
local value = redis.call('GET', KEYS[1])
if value then return value end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
# ARGV: token, value, milliseconds. No value, of a computation that failed, only gives the lease back.
KEEP = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return redis.call('DEL', KEYS[2])
"""
FORGET = "return redis.call('DEL', KEYS[1], KEYS[2])"


def get_or_compute(key: str, ttl: float, compute: Callable[[], Any]) -> Any:
    """The value of `key`: what is kept, or else what `compute()` returns, which is kept for about `ttl` seconds.

    Either way it comes back as JSON gives it: a tuple is a list, a time is text. When its shape changes, give it
    another key: during a deploy the former release reads it too. It may be out of date for as long as `ttl` where
    `forget` met a Redis that was down.

    Raises:
        TypeError: JSON cannot hold the value.
        Exception: whatever `compute` raises; the next caller tries again.
    """
    token = secrets.token_hex(8)
    until = time.monotonic() + WAIT
    while (found := run(TAKE, key, token, int(LEASE * 1000))) == TAKEN and time.monotonic() < until:
        time.sleep(POLL)
    if isinstance(found, bytes):
        return orjson.loads(found)
    value = b""
    try:
        value = to_json(compute())
    finally:
        if found == OURS:
            lasts = ttl * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  nothing is secret about it
            run(KEEP, key, token, value, max(1, int(lasts * 1000)))
    return orjson.loads(value)


def forget(*keys: str) -> None:
    """Drop what is kept of `keys`, and what is being computed of them; call it after the commit of a write."""
    for key in keys:
        run(FORGET, key)


def forgets(*keys: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`forget` these after each call of a view, also of one that failed: it may have committed before.

    It stands above the view's `@idempotent`, which commits.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def call(**values: Any) -> Any:
            try:
                return current_app.ensure_sync(view)(**values)
            finally:
                forget(*keys)

        return call

    return decorate


def run(script: str, key: str, *arguments: object) -> Any:
    """What a script answers about an entry, in one round trip; None without Redis, or where that fails."""
    redis = current_app.extensions.get("redis")
    if redis is None:
        return None
    from redis import RedisError

    # A cluster chooses the slot by what stands in braces: an entry and its lease lie in the same one.
    name = f"cache:{{{key}}}"
    try:
        return redis.register_script(script)([name, f"{name}:lease"], arguments)
    except RedisError:
        return None
