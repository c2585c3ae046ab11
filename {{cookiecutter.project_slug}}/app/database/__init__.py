"""The database: engine options, the column type for times, and what readiness asks of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

from flask import Flask
from sqlalchemy import Connection, DateTime, Dialect, Engine, QueuePool, event, inspect, text
from sqlalchemy.types import TypeDecorator

from app.extensions import db
from app.settings import ROOT, Settings

View = TypeVar("View", bound=Callable[..., Any])
MIGRATIONS = ROOT / "migrations"
CONNECT_TIMEOUT = 5  # seconds to connect, for a connection to prove that it lives, and to wait for a lock in SQLite
REPLICA_TIMEOUT = 2  # the same for the replica: there is another one to ask
POOL_TIMEOUT = 5  # seconds a request waits for a free connection before it fails
POOL_RECYCLE = 1800  # seconds; firewalls forget idle connections after an hour or so
INVALID_INDEXES = """
SELECT c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i' AND NOT EXISTS (
    SELECT FROM pg_stat_progress_create_index p
    WHERE p.datname = current_database() AND (p.relid = i.indrelid OR p.relid IS NULL)
) ORDER BY 1
"""
_taken: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()  # when a connection was, last, of the monotonic clock


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone, UTC; SQLite gives back times without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


def init_app(app: Flask, settings: Settings) -> None:
    """Bind the database, and its replica if there is one; nothing connects yet."""
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(settings, settings.database_url, CONNECT_TIMEOUT)
    if url := settings.database_replica_url:
        options = engine_options(settings, url, REPLICA_TIMEOUT)
        app.config["SQLALCHEMY_BINDS"] = {"replica": {"url": url, **options}}
    db.init_app(app)
    with app.app_context():
        for key, engine in db.engines.items():
            if engine.dialect.name == "sqlite":
                Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)
                event.listen(engine, "connect", _tune_sqlite)
            else:
                postgres = import_module("app.database.postgres")
                postgres.set_limits(engine, REPLICA_TIMEOUT if key else CONNECT_TIMEOUT, read_only=key == "replica")
            event.listen(engine, "checkout", partial(_note_taken, engine))


def engine_options(settings: Settings, url: str, connect_timeout: int) -> dict[str, Any]:
    """How to connect to `url`, and to wait for a connection."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": connect_timeout}}
    return {
        "hide_parameters": settings.production,  # an error would tell logs and Sentry what a client sent
        "pool_recycle": POOL_RECYCLE,
        "pool_timeout": POOL_TIMEOUT,
        **import_module("app.database.postgres").engine_options(settings.plan().pool_size, connect_timeout),
    }


def read_only(view: View) -> View:
    """Mark a view that only reads, and may be a moment behind: it reads from the replica, where there is one.

    Which other decorators it has, and in which order, does not matter. See app/database/replica.py.
    """
    view.__dict__["read_only"] = True
    return view


def forget_connections(app: Flask) -> None:
    """Leave the connections opened before a fork to the parent; a socket shared by two mixes their answers."""
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose(close=False)


def is_busy(engine: Engine) -> bool:
    """Whether every connection is in use, and they change hands: the database answers, though not us for now.

    Greenlets have fewer connections than they are. If readiness waited for one, every instance would be out of
    rotation at the height of the load. If none is free for as long as a request waits for one, requests fail.
    """
    pool = engine.pool
    full = isinstance(pool, QueuePool) and pool.checkedout() >= pool.size()
    return full and time.monotonic() - _taken.get(engine, 0.0) < POOL_TIMEOUT


def ping(engine: Engine | None = None) -> Literal["up"]:
    """Answer if the database does, or another one."""
    engine = engine or db.engine
    if not is_busy(engine):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    return "up"


def compare_schema() -> Literal["up", "behind"]:
    """Behind only if the schema stands before our newest migration.

    A revision that we do not know was made by a newer release: its migrations keep the older release working,
    so that it stays in rotation while the newer one rolls out.
    """
    known, followed = _revisions()
    if is_busy(db.engine):
        return "up"
    with db.engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return "behind" if known else "up"
        current = set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    return "behind" if (known and not current) or current & followed else "up"


def invalid_indexes(connection: Connection) -> list[str]:
    """The indexes, quoted where needed, that a CREATE INDEX CONCURRENTLY left when it failed.

    Every write keeps them up, and no query uses them. One that is being built now is not among them; which one that
    is, we are not told of others' tables. Nor is the index of a partitioned table, which waits for its parts.
    """
    if connection.dialect.name != "postgresql":
        return []
    return list(connection.execute(text(INVALID_INDEXES)).scalars())


def drop_indexes(names: Iterable[str]) -> str:
    """The SQL that removes them, with nobody waiting for it."""
    return " ".join(f"DROP INDEX CONCURRENTLY {name};" for name in names)


def heads() -> frozenset[str]:
    """The newest migrations of this release: one, unless two branches were never merged."""
    known, followed = _revisions()
    return known - followed


@cache
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """The migrations of this release, and those of them that others follow, read without importing Alembic."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (MIGRATIONS / "versions").glob("*.py"))
    known = re.findall(r'^revision\b.*?= *"(\w+)"', source, re.M)
    followed = re.findall(r'"(\w+)"', "\n".join(re.findall(r"^down_revision\b.*", source, re.M)))
    return frozenset(known), frozenset(followed)


def _tune_sqlite(connection: Any, _record: object) -> None:
    """Let readers and a writer work at the same time, and hold SQLite to its foreign keys."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _note_taken(engine: Engine, *_: object) -> None:
    _taken[engine] = time.monotonic()
