"""Reading from a copy of the database; imported only where DATABASE_REPLICA_URL is set.

A view marked with `@database.read_only` reads there, in read-only transactions of a session of its own. It reads from
the primary where its request has written before (a `before_request`, say), and while the replica is down. If that goes
down in the middle of the view, the view runs once more, on the primary: it only reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from flask import Flask, current_app, g, request
from flask_sqlalchemy.session import Session
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import ORMExecuteState

from app import database
from app.breaker import Breaker
from app.extensions import db

CONFLICT = "40001"  # the SQLSTATE of a statement that would read what the primary has removed meanwhile


class ReadSession(Session):
    """The session of a view that reads from the replica."""

    bind: Connection

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        return self.bind


def init_app(app: Flask) -> None:
    """Have the views that are marked read from the replica, and readiness tell whether they do."""
    with app.app_context():
        breaker = Breaker("replica", partial(database.ping, db.engines["replica"]))
        # In a thread of its own `ask` has no application, and needs none.
    app.extensions["breakers"].append(breaker)
    for endpoint, view in app.view_functions.items():
        if getattr(view, "read_only", False):
            app.view_functions[endpoint] = read_there(view, breaker)
    event.listen(db.session, "after_flush", note_flush)
    event.listen(db.session, "do_orm_execute", note_statement)
    event.listen(ReadSession, "before_flush", refuse)


def read_there(view: Callable[..., Any], breaker: Breaker) -> Callable[..., Any]:
    """The view, with a session that reads from the replica if it can."""

    @wraps(view)
    def call(**values: Any) -> Any:
        run = partial(current_app.ensure_sync(view), **values)
        if breaker.error or g.get("wrote"):
            return run()
        try:
            connection = db.engines["replica"].connect()
        except OperationalError as error:
            breaker.trip(error)
            return run()
        sessions = db.session.registry
        before = sessions() if sessions.has() else None
        session = ReadSession(db, bind=connection, expire_on_commit=False)
        sessions.set(session)
        try:
            return run()
        except DBAPIError as error:
            if error.connection_invalidated:
                breaker.trip(error)
            elif getattr(error.orig, "sqlstate", None) != CONFLICT:
                raise
        finally:
            session.close()
            connection.close()
            if before is None:
                sessions.clear()
            else:
                sessions.set(before)
        return run()

    return call


def note_flush(*_: object) -> None:
    g.wrote = True


def note_statement(state: ORMExecuteState) -> None:
    """What is no SELECT of SQLAlchemy's may write; text may be anything."""
    if not state.is_select:
        g.wrote = True


def refuse(*_: object) -> None:
    raise RuntimeError(f"{request.endpoint} is marked with @database.read_only, and writes: remove the mark")
