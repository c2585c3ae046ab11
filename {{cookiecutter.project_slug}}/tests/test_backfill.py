"""Backfills: each row once, in steps, and on with what is left. The boot suite of the template has users beside it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, update

from app.database import backfill
from app.database.backfill import Backfill
from app.extensions import db

ROWS = 25
THINGS = Table(
    "things", MetaData(), Column("id", Integer, primary_key=True), Column("name", String), Column("n", Integer)
)
TODO = THINGS.c.name.startswith("old")


@pytest.fixture
def app(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """With rows to be done, in three steps."""
    monkeypatch.setattr(backfill, "BATCH", 10)
    monkeypatch.setattr(backfill, "PAUSE", 0.01)
    with app.app_context():
        THINGS.create(db.engine)
        db.session.execute(insert(THINGS), [{"name": f"old {number}", "n": 0} for number in range(ROWS)])
        db.session.commit()
        yield app


def names_and_counts() -> list[tuple[str, int]]:
    return [(name, n) for name, n in db.session.execute(select(THINGS.c.name, THINGS.c.n))]


def count_up(ids: Sequence[Any]) -> None:
    db.session.execute(update(THINGS).where(THINGS.c.id.in_(ids)).values(name="new", n=THINGS.c.n + 1))


def test_each_row_is_done_once_and_a_second_run_finds_nothing(app: Flask) -> None:
    first, second = Backfill(THINGS.c.id, TODO, count_up), Backfill(THINGS.c.id, TODO, count_up)
    assert (first.run(), first.done) == (0, ROWS)
    assert names_and_counts() == [("new", 1)] * ROWS
    assert (second.run(), second.done) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_step_and_the_next_run_goes_on(app: Flask, number: signal.Signals) -> None:
    def interrupted(ids: Sequence[Any]) -> None:
        os.kill(os.getpid(), number)
        count_up(ids)

    before = signal.getsignal(number)
    stopped, next_one = Backfill(THINGS.c.id, TODO, interrupted), Backfill(THINGS.c.id, TODO, count_up)
    assert (stopped.run(), stopped.done) == (128 + number, 10)
    assert signal.getsignal(number) == before
    assert (next_one.run(), next_one.done) == (0, ROWS - 10)
    assert names_and_counts() == [("new", 1)] * ROWS


def test_one_that_leaves_rows_as_they_are_is_refused(app: Flask) -> None:
    endless = Backfill(THINGS.c.id, TODO, lambda ids: None)
    with pytest.raises(RuntimeError, match="it would never end"):
        endless.run()


def test_features_register_theirs_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "BACKFILLS", {})
    assert backfill.backfill(THINGS.c.id, todo=TODO)(count_up) is count_up
    assert backfill.find_backfills()["count_up"].fill is count_up
