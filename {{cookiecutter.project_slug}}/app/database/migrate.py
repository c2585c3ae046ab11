"""How migrations run: one run at a time, and never with users in a queue behind it for long.

`migrations/env.py` calls this for `flask db upgrade`, `downgrade` and `stamp`. On PostgreSQL:

- A schema that is where it should be is left alone: nothing is locked, nothing waited for.
- Else the run takes an advisory lock on the connection that migrates. It is held as long as PostgreSQL works for this
  run, and no longer, whatever becomes of the program.
- Each migration is a transaction, its row in `alembic_version` included: what was done stays done, what was not done
  left nothing. The exception is what PostgreSQL does CONCURRENTLY, which stands alone in its migration.
- A statement gives up when it waited LOCK_TIMEOUT for a lock, for whoever comes after it waits as well; its migration
  is tried again after a pause.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Iterator
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import DBAPIError

from app.database import drop_indexes, invalid_indexes, lock

log = logging.getLogger(__name__)

LOCK_TIMEOUT = 2.0  # seconds that a statement waits for a lock, and users behind it
STATEMENT_TIMEOUT = 900.0  # seconds for a statement; what takes longer belongs into a backfill
IDLE_TIMEOUT = 60.0  # seconds that a transaction may do nothing: the machine that runs this may be gone
ATTEMPTS = 8  # to get the locks of a migration, in about two minutes
LONGEST_PAUSE = 30.0  # seconds between two of them

LOCK_NOT_AVAILABLE, DEADLOCK, ALREADY_THERE = "55P03", "40P01", "42P07"


class Run:
    """One run of a command.

    Attributes:
        connection: that migrates, and that has the lock.
        options: for `context.configure`.
        may_be_pooled: whether somebody chose this way to the database for migrations.
        step: the migration under way.
        failures: how often it did not get its locks.
    """

    def __init__(self, connection: Connection, options: dict[str, Any], may_be_pooled: bool) -> None:
        self.connection, self.options, self.may_be_pooled = connection, options, may_be_pooled
        self.step: Any = None
        self.failures = 0
        self.configure()
        command = context.get_context()
        self.changes_schema = "destination_rev" in command.opts  # `flask db migrate` and `flask db current` do not
        self.to_newest = command.opts.get("destination_rev") in ("head", "heads")
        self.plan = command.opts["fn"]

    def __call__(self) -> None:
        """Do what the command says.

        Raises:
            CommandError: one line that says what failed and what to do about it.
        """
        if not self.changes_schema:
            with context.begin_transaction():
                context.run_migrations()
        elif self.is_pending() and self.is_ours():
            while not self.migrate():
                pause = min(2.0**self.failures, LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311  no secret
                log.warning("%s: no lock in time, try %d of %d in %.0f s", self.step, self.failures, ATTEMPTS, pause)
                time.sleep(pause)

    def configure(self, **more: Any) -> None:
        context.configure(connection=self.connection, transaction_per_migration=True, **self.options, **more)

    def is_pending(self) -> bool:
        """Whether there is anything to do; it waits for nobody, and nobody waits for it.

        Raises:
            CommandError: the schema is at a revision that no release of this service can have made.
        """
        command = context.get_context()
        current = () if command.purge else command.get_current_heads()
        try:
            return any(self.plan(current, command))
        except CommandError:
            if not self.to_newest:
                raise
            # After a rollback a newer release has migrated, which is well. Its database has our tables, though.
            found = f"The schema is at {', '.join(current)}, which this release does not know"
            missing = set(self.options["target_metadata"].tables) - set(inspect(self.connection).get_table_names())
            if missing:
                lacks = f"{found}, and has no table {', '.join(sorted(missing))}"
                raise CommandError(f"{lacks}: it is another program's. See that DATABASE_URL is right") from None
            log.info("%s: a newer one made it, and there is nothing to do", found)
            return False
        finally:
            self.connection.rollback()

    def is_ours(self) -> bool:
        """Whether there is still something to do when all others are done; nobody else does it from then on.

        Raises:
            CommandError: it is not safe to begin.
        """
        if self.connection.dialect.name != "postgresql":
            return True
        lock.take(self.connection, self.may_be_pooled)
        names = invalid_indexes(self.connection)
        self.connection.rollback()
        if names:
            raise CommandError(
                f"{', '.join(names)}: an invalid index, left by a CREATE INDEX CONCURRENTLY that failed. {mend(names)}"
            )
        event.listen(self.connection, "before_cursor_execute", limit)
        return self.is_pending()

    def migrate(self) -> bool:
        """Run the migrations that are pending; False where one did not get its locks, and may soon.

        Raises:
            CommandError: one failed.
        """
        try:
            self.configure(fn=self.steps)
            with context.begin_transaction():
                context.run_migrations()
        except DBAPIError as error:
            self.failures += 1
            code, names = getattr(error.orig, "sqlstate", None), list[str]()
            with contextlib.suppress(DBAPIError):  # the connection may be what failed
                self.connection.rollback()
                if self.failures < ATTEMPTS and code in (LOCK_NOT_AVAILABLE, DEADLOCK):
                    return False
                names = invalid_indexes(self.connection)
            raise CommandError(f"{self.step} failed: {said(error)}. {mend(names, code)}") from error
        return True

    def steps(self, heads: tuple[str, ...], command: MigrationContext) -> Iterator[Any]:
        """What the command does, and a log line after each migration that is committed."""
        for step in self.plan(heads, command):
            self.step, began = step, time.monotonic()
            yield step
            log.info("%s: done", step, extra={"seconds": round(time.monotonic() - began, 2)})
            self.failures = 0


def limit(_connection: object, cursor: Any, statement: str, *_: object) -> None:
    """Before each statement, set how long it may take.

    What is done CONCURRENTLY has no limit. It waits for every older transaction, and nobody waits for it; to give up
    would leave an invalid index.
    """
    patient = "CONCURRENTLY" in statement.upper()
    seconds = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": STATEMENT_TIMEOUT}
    values = {name: 0 if patient else value for name, value in seconds.items()}
    values["idle_in_transaction_session_timeout"] = IDLE_TIMEOUT
    cursor.execute("; ".join(f"SET {name} = {value * 1000:.0f}" for name, value in values.items()))


def mend(indexes: list[str], code: str | None = None) -> str:
    """What to do about a failure with this code of PostgreSQL, which left these invalid indexes."""
    if indexes:
        return f"Remove what is left with {drop_indexes(indexes)} and then again: flask db upgrade"
    if code == LOCK_NOT_AVAILABLE:
        return f"Somebody held the table at each of {ATTEMPTS} tries; when they are done, again: flask db upgrade"
    if code == ALREADY_THERE:
        return (
            "If another program made it, name a database of this service's own in DATABASE_URL; "
            "if a run that was killed, drop it, and then again: flask db upgrade"
        )
    return "It changed nothing, and what came before it is done. Mend it, then again: flask db upgrade"


def said(error: DBAPIError) -> str:
    """The first line of what the database said: what follows may quote rows."""
    told = getattr(getattr(error.orig, "diag", None), "message_primary", None) or str(error.orig)
    return next(iter(told.strip().splitlines()), type(error.orig).__name__)
