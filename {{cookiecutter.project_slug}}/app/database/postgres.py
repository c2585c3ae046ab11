"""What holds for PostgreSQL alone: nothing waits for it without end, be it slow, stuck, frozen or gone.

Imported only where a URL names it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Engine, event, text

from app.capacity import SECONDS
from app.settings import ANSWERS

T = TypeVar("T")
# Seconds for an answer: what the database gives up on itself is told by then, and no worker is taken for stuck yet.
PATIENCE = (SECONDS["statement"] + SECONDS["request"]) / 2
# A transaction in which nothing happens for as long as a request may take holds locks for a thread that is stuck.
LIMITS = "; SET LOCAL statement_timeout = {:.0f}; SET LOCAL idle_in_transaction_session_timeout = {:.0f}".format(
    SECONDS["statement"] * 1000, SECONDS["request"] * 1000
).encode()
# A balancer or a firewall in between forgets a connection that says nothing for 4 minutes (Azure) or 350 s (AWS).
KEEPALIVE = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}


class Connection(psycopg.Connection[Any]):
    """A connection of psycopg on which every wait ends; one that waited in vain is closed."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        seconds = timeout or PATIENCE
        try:
            return super().wait(gen, interval, seconds)
        except psycopg.OperationalError:
            if not self.closed and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()  # it would take the late answer for that to the next statement
                raise psycopg.OperationalError(f"no answer in {seconds:g} s") from None
            raise

    def send(self, message: bytes, timeout: float | None = None) -> None:
        """Execute statements that give no rows, in one message."""
        with self.lock:
            self.pgconn.send_query(message)
            for result in self.wait(generators.execute(self.pgconn), timeout=timeout):
                if result.status == ExecStatus.FATAL_ERROR:
                    raise errors.error_from_result(result)

    def begin(self) -> None:
        """Begin a transaction and set its limits, in the one message that would begin it anyway.

        So they cost no time, and a pooler in transaction mode, which refuses `options` and mixes up what is set for
        a session, lets them pass. psycopg begins a transaction only where none is.
        """
        if not self.autocommit:  # else somebody asked SQLAlchemy for that
            self.send(self._get_tx_start_command() + LIMITS)

    def rollback(self) -> None:
        """Undo the transaction, which the database has done where the connection is lost.

        A request that only reads ends in a rollback, after its answer is made: an error here would take that away.
        """
        with suppress(psycopg.OperationalError):
            super().rollback()


def engine_options(pool_size: int, connect_timeout: int) -> dict[str, Any]:
    """One connection a thread, checked before use.

    Args:
        pool_size: connections of a worker, at most.
        connect_timeout: seconds; 2 is the least.
    """
    return {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_pre_ping": True,
        # prepare_threshold=None: a pooler in transaction mode gives each transaction another connection, which
        # does not know the statements that the last one prepared.
        "connect_args": {
            "connect_timeout": connect_timeout,
            "application_name": ANSWERS["slug"],
            "prepare_threshold": None,
            **KEEPALIVE,
        },
    }


def set_limits(engine: Engine, patience: float, *, read_only: bool = False) -> None:
    """Have `engine` make connections of ours, and ask them at most `patience` seconds whether they live."""

    def connect(_dialect: object, _record: object, args: list[Any], options: dict[str, Any]) -> Connection:
        connection = Connection.connect(*args, **options)
        if read_only:
            connection.read_only = True
        return connection

    def begin(dbapi_connection: Any) -> None:
        dbapi_connection.begin()

    def ping(dbapi_connection: Any) -> bool:
        dbapi_connection.send(b"", patience)  # SQLAlchemy's own takes more than twice the CPU
        return True

    event.listen(engine, "do_connect", connect)
    engine.dialect.do_begin = begin  # type: ignore[method-assign]
    engine.dialect.do_ping = ping  # type: ignore[method-assign]


def is_pooled(connection: sqlalchemy.Connection) -> bool:
    """Whether a pooler is in between, which makes up the process number that it tells its clients."""
    driver: Any = connection.connection.driver_connection
    let_in: int = driver.info.backend_pid
    answers: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    return answers != let_in
