"""What holds for PostgreSQL alone: nothing waits for it without end, be it slow, stuck, frozen or gone.

Imported only where a URL names it.
"""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

from app.capacity import SECONDS
from app.settings import ANSWERS

T = TypeVar("T")
# Seconds for an answer: what the database gives up on itself is told by then, and no worker is taken for stuck yet.
PATIENCE = (SECONDS["statement"] + SECONDS["request"]) / 2
# A transaction in which nothing happens for as long as a request may take holds locks for a thread that is stuck.
LIMITS = "; SET LOCAL statement_timeout = {:.0f}; SET LOCAL idle_in_transaction_session_timeout = {:.0f}".format(
    SECONDS["statement"] * 1000, SECONDS["request"] * 1000
).encode()
# A host that vanished answers nothing, not even that it is gone, and by its defaults Linux finds out after 15 minutes,
# or two hours while it only listens. Here it is 5 s after we sent something, and 15 s after the last sign of life.
DEAD_PEER = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 5000}


class Connection(psycopg.Connection[Any]):
    """A connection of psycopg that gives up.

    Its transactions begin with their limits, in the one message that begins them: it takes no more time, and a pooler
    in transaction mode, which refuses `options` and mixes up `SET`, lets it pass.

    Attributes:
        patience: seconds that the database has for each answer; a connection that waited in vain is closed.
    """

    patience = PATIENCE

    def _get_tx_start_command(self) -> bytes:
        return super()._get_tx_start_command() + LIMITS

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, timeout or self.patience)
        except psycopg.OperationalError:
            if not self.closed and self.info.transaction_status == TransactionStatus.ACTIVE:
                self.close()  # it would take the late answer for that to the next statement
                raise psycopg.OperationalError(f"no answer in {self.patience:g} s") from None
            raise


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
            **DEAD_PEER,
        },
    }


def set_limits(engine: Engine, seconds: float, *, read_only: bool = False) -> None:
    """Have `engine` make connections of ours, which must answer within `seconds` when they are taken from the pool."""
    ping = engine.dialect.do_ping

    def connect(_dialect: object, _record: object, args: list[Any], options: dict[str, Any]) -> Connection:
        connection = Connection.connect(*args, **options)
        if read_only:
            connection.read_only = True
        return connection

    def ping_in_time(dbapi_connection: Any) -> bool:
        dbapi_connection.patience = seconds
        try:
            return ping(dbapi_connection)
        finally:
            dbapi_connection.patience = PATIENCE

    event.listen(engine, "do_connect", connect)
    engine.dialect.do_ping = ping_in_time  # type: ignore[method-assign]
