"""The lock that one run of the migrations has at a time, on PostgreSQL.

It is an advisory lock of the session: held as long as PostgreSQL works for that run, and no longer, whatever becomes of
the program. A row or a file would have to be cleared by somebody after a crash.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time

from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.database.postgres import is_pooled

log = logging.getLogger(__name__)

LOCK = 0x6D696772  # its number; nothing else in this database may take it
PATIENCE = 600.0  # seconds to wait for another run
HOLDER = """
SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND objid = :lock AND granted AND datname = current_database()
"""


def take(connection: Connection, may_be_pooled: bool) -> None:
    """Take the lock, or wait for it. It goes with the connection.

    It asks again and again. Who waits inside pg_advisory_lock has a snapshot all the while, and CREATE INDEX
    CONCURRENTLY waits for every older snapshot: the run that has the lock would wait for those that want it.

    Args:
        connection: that migrates.
        may_be_pooled: whether somebody chose this way to the database for migrations.

    Raises:
        CommandError: another run has it for longer than PATIENCE, or no lock can be kept this way.
    """
    if not may_be_pooled:
        refuse_pooler(connection)
    with contextlib.suppress(DBAPIError):  # from PostgreSQL 14 on, and not on every system
        # A program that is killed while its statement runs is missed within a second: the statement ends, the lock goes.
        connection.exec_driver_sql("SET client_connection_check_interval = '1s'")
        connection.commit()
    connection.rollback()
    until, waited = time.monotonic() + PATIENCE, False
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}):
        holder = connection.scalar(text(HOLDER), {"lock": LOCK})
        connection.rollback()
        if time.monotonic() > until:
            raise CommandError(
                f"Process {holder} of PostgreSQL has been at the migrations for over {PATIENCE:.0f} s. "
                "TABLE pg_stat_activity tells what it does; then again: flask db upgrade"
            )
        if not waited:
            log.info("waiting up to %.0f s for another run (process %s of PostgreSQL)", PATIENCE, holder)
        waited = True
        time.sleep(random.uniform(0.1, 0.3))  # noqa: S311  no secret
    connection.rollback()


def refuse_pooler(connection: Connection) -> None:
    """Go on if this session is ours alone: a pooler gives each transaction another one, which has not our lock.

    Raises:
        CommandError: somebody stands between.
    """
    pooled = is_pooled(connection)
    connection.rollback()
    if pooled:
        raise CommandError(
            "DATABASE_URL goes through a connection pooler, which keeps no lock from one migration to the next. "
            "Set DATABASE_MIGRATION_URL to the database itself"
        )
