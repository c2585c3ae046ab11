"""Change many rows of a table that is in use: in small steps, with nobody waiting.

A feature says in `app/FEATURE/backfills.py` what is to be done, and to which rows:

    @backfill(Item.id, todo=Item.title.is_distinct_from(Item.name))
    def item_titles(ids: Sequence[Any]) -> None:
        db.session.execute(update(Item).where(Item.id.in_(ids)).values(title=Item.name, updated_at=Item.updated_at))

and `flask backfill item_titles` does it. `todo` is the whole state: where it holds, a row is not done, and the function
must make it false. So whatever ends a run, the next one goes on with what is left.

A step looks at BATCH rows in the order of their key, skips those that somebody is changing, changes the others, and
commits. Then the run rests for as long as that took: it has the database for half of the time at most. It goes round
until a whole round has found nothing to do, since users change rows behind its back.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, SQLColumnExpression, select, text
from sqlalchemy.exc import OperationalError

from app.extensions import db

log = logging.getLogger(__name__)

BATCH = 1000  # rows: a user who wants one of them waits for some milliseconds
LOCK_TIMEOUT = 0.5  # seconds to wait for what the function may touch beside them
REPORT = 5.0  # seconds between two lines of progress
PAUSE = 1.0  # seconds between two rounds
ROUNDS = 10  # in which no row could be done, before it gives up

Fill = Callable[[Sequence[Any]], None]


@dataclass
class Backfill:
    """What is to be done.

    Attributes:
        key: the primary key, of one column.
        todo: holds for the rows that are not done.
        fill: does it to the rows with these keys, which are locked; it does not commit.
        done, skipped: rows, of this run and of this round.
        stopped: the signals that came.
    """

    key: SQLColumnExpression[Any]
    todo: ColumnElement[bool]
    fill: Fill
    done: int = 0
    skipped: int = 0
    stopped: list[int] = field(default_factory=list)

    def run(self) -> int:
        """Go round until nothing is left to do.

        Returns:
            An exit code: 0; 1 where others kept rows locked; or 128 and the number of the signal that stopped it.
        """
        idle = 0
        with self.stop_between_steps():
            while idle < ROUNDS:
                before = self.done
                self.go_round()
                if self.stopped:
                    log.warning("stopped after %d rows; run it again for the rest", self.done)
                    return 128 + self.stopped[0]
                if self.done == before and not self.skipped:
                    log.info("%d rows done, and none is left", self.done)
                    return 0
                idle = idle + 1 if self.done == before else 0
                self.rest(PAUSE if idle else 0)
        log.error("%d rows done; %d are left, which somebody keeps locked. Run it again", self.done, self.skipped)
        return 1

    def go_round(self) -> None:
        """All rows once."""
        self.skipped, after, told = 0, None, time.monotonic()
        while not self.stopped:
            began, before = time.monotonic(), self.done
            try:
                after = self.step(after)
            except OperationalError as error:  # no lock in time, a deadlock, a database that starts anew
                db.session.rollback()
                log.warning("%s; this round ends", str(error.orig).partition("\n")[0])
                self.skipped += 1
                return
            if after is None:
                return
            now = time.monotonic()
            if now - told > REPORT:
                log.info("%d rows done, up to %s", self.done, after)
                told = now
            if self.done > before:
                self.rest(now - began)

    def step(self, after: Any) -> Any:
        """Do what is to be done among the next rows after this key; the last one's key, or None where no more come."""
        begin = () if after is None else (self.key > after,)
        if db.engine.dialect.name == "postgresql":
            db.session.execute(text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}"))
        last = db.session.scalar(select(self.key).where(*begin).order_by(self.key).offset(BATCH - 1).limit(1))
        end = () if last is None else (self.key <= last,)
        rows = select(self.key).where(*begin, *end, self.todo).order_by(self.key)
        keys = db.session.scalars(rows.with_for_update(skip_locked=True)).all()
        if keys:
            self.fill(keys)
        left = set(db.session.scalars(rows))
        if undone := left & set(keys):
            raise RuntimeError(f"{len(undone)} rows are still to be done when they are done: it would never end")
        db.session.commit()
        self.done += len(keys)
        self.skipped += len(left)
        return last

    def rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopped and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    @contextmanager
    def stop_between_steps(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for a wish: the step under way is finished."""
        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(one, lambda number, _: self.stopped.append(number)) for one in signals]
        try:
            yield
        finally:
            for one, handler in zip(signals, before, strict=True):
                signal.signal(one, handler)


BACKFILLS: dict[str, Backfill] = {}


def backfill(key: SQLColumnExpression[Any], todo: ColumnElement[bool]) -> Callable[[Fill], Fill]:
    """Register the function below under its name; see the top of this file."""

    def register(fill: Fill) -> Fill:
        BACKFILLS[fill.__name__] = Backfill(key, todo, fill)
        return fill

    return register


def find_backfills() -> dict[str, Backfill]:
    """What the features have registered."""
    for module in sorted(Path(__file__).parents[1].glob("*/backfills.py")):
        import_module(f"app.{module.parent.name}.backfills")
    return BACKFILLS
