"""Sessions: what a view keeps for one client in `flask.session`. On Redis where REDIS_URL is set, else in the cookie.

Both hold the same values: JSON, and what Flask tags beside it, times for example. They last eight hours, and use renews
them. A login begins with `session.clear()`: what is written after it has a new id, which nobody can have known before
(https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html, "Renew the Session ID").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import import_module
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSessionInterface, SessionMixin

from app.settings import Settings


class Session(SessionMixin):
    """Values that are read at the first touch: a request that does not ask for them pays nothing for them.

    Attributes:
        modified: they are kept after the request only if this is true. Assigning and deleting set it; a change inside
            a value does not, as for Flask's own sessions.
    """

    modified = accessed = False
    permanent = True  # the cookie ends with what it stands for

    def __init__(self, load: Callable[[Any, Request], dict[str, Any]], request: Request) -> None:
        self.load, self.request = load, request

    @cached_property
    def data(self) -> dict[str, Any]:
        return self.load(self, self.request)

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        del self.data[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class CookieSessions(SecureCookieSessionInterface):
    """Flask's signed cookie: the client can read its values and not change them. Nothing ends them before their time."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def open_session(self, app: Flask, request: Request) -> Session:  # type: ignore[override]
        return Session(self.load, request)

    def load(self, session: Session, request: Request) -> dict[str, Any]:
        return super().open_session(self.app, request) or {}

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        if session.accessed or session.modified:
            super().save_session(app, session, response)


def init_app(app: Flask, settings: Settings) -> None:
    """Choose where sessions are kept."""
    on_redis = settings.redis_url is not None
    app.session_interface = import_module("app.redis_sessions").RedisSessions(app) if on_redis else CookieSessions(app)
