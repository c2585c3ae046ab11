"""Limits on what one client may ask for: `@limits.writes` above a view, below its route. Other views pay nothing.

app/limiter.py counts; it is there unless RATELIMIT_ENABLED=0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import current_app


def writes(view: Callable[..., Any]) -> Callable[..., Any]:
    """Count a request against the client's RATELIMIT_WRITES, which all views with this decorator share.

    What is too much is answered with 429, before the view runs; app/openapi.py documents it.
    """

    @wraps(view)
    def limited(*args: Any, **values: Any) -> Any:
        count: Callable[[], None] | None = current_app.extensions.get("limits")
        if count is not None:
            count()
        return current_app.ensure_sync(view)(*args, **values)

    limited.__dict__["limited"] = True  # a decorator outside this one that uses wraps() keeps it
    return limited
