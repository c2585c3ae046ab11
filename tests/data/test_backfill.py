"""A backfill beside a service that is in use: stopped, killed and run again it does each row once, and waits for nobody."""

from __future__ import annotations

import signal
import time

import pytest

from support.service import wait_for
from support.trial import Trial

pytestmark = pytest.mark.default_class
ROWS = 2000
BACKFILLS = '''"""A trial: `todo` holds for names that begin with "old"; the quantity counts how often a row was done."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, text, update

from app.database.backfill import backfill
from app.extensions import db
from app.items.model import Item


@backfill(Item.id, todo=Item.name.startswith("old"))
def new_names(ids: Sequence[Any]) -> None:
    values = {"name": func.replace(Item.name, "old", "new"), "quantity": Item.quantity + 1, "updated_at": Item.updated_at}
    db.session.execute(update(Item).where(Item.id.in_(ids)).values(values))
    db.session.execute(text("SELECT pg_sleep(0.02)"))


@backfill(Item.id, todo=Item.name.startswith("old"))
def nothing(ids: Sequence[Any]) -> None:
    """It forgets to make `todo` false."""
'''


@pytest.fixture
def filled(trial: Trial) -> Trial:
    """Rows to be done, and a backfill for them, of 20 steps."""
    (trial.service.folder / "app" / "items" / "backfills.py").write_text(BACKFILLS)
    trial.set("database/backfill.py", "BATCH", 100)
    trial.set("database/backfill.py", "PAUSE", 0.1)
    items = f"SELECT 'old ' || n, 0, 1, now(), now() FROM generate_series(1, {ROWS}) n"
    trial.sql(f"INSERT INTO items (name, quantity, version, created_at, updated_at) {items}")
    return trial


def done(trial: Trial) -> int:
    return int(trial.sql("SELECT count(*) FROM items WHERE name LIKE 'new%'")[0][0])


def how_often(trial: Trial) -> list[list[str]]:
    """How many rows were done how often."""
    return trial.sql("SELECT quantity, count(*) FROM items GROUP BY 1 ORDER BY 1")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.with_all)]
)
def test_however_it_ends_the_next_run_goes_on_and_each_row_is_done_once(
    filled: Trial, number: signal.Signals, code: int
) -> None:
    run = filled.start("backfill", "new_names")
    wait_for(lambda: done(filled) > 100, "it is under way")
    run.send_signal(number)
    output = run.communicate(timeout=30)[0]
    assert run.returncode == code, output
    assert ("run it again for the rest" in output) == (number != signal.SIGKILL)
    wait_for(
        lambda: (
            not filled.sql(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.02)%' AND state = 'active' AND pid <> pg_backend_pid()"
            )
        ),
        "the last step ends",
    )
    so_far = done(filled)
    assert 100 < so_far < ROWS
    assert how_often(filled) == [["0", str(ROWS - so_far)], ["1", str(so_far)]], "whole steps"
    code, output = filled.run("backfill", "new_names")
    assert code == 0, output
    assert f"{ROWS - so_far} rows done, and none is left" in output
    assert how_often(filled) == [["1", str(ROWS)]]


def test_what_users_write_meanwhile_stays_and_rows_in_their_hands_are_done_later(filled: Trial) -> None:
    ((first, last),) = filled.sql("SELECT min(id), max(id) FROM items")
    with filled.session(f"UPDATE items SET name = 'old and theirs' WHERE id = {first}"):
        run = filled.start("backfill", "new_names")
        wait_for(lambda: done(filled) > 100, "it is under way")
        began = time.monotonic()
        filled.sql(f"UPDATE items SET name = 'mine' WHERE id = {last}")
        assert time.monotonic() - began < 5
        wait_for(lambda: done(filled) == ROWS - 2, "all others are done, past the one that is locked", 60)
        assert run.poll() is None
    assert run.wait(30) == 0, "psql left without COMMIT: the row is as it was, and done"
    names = filled.sql(f"SELECT name, quantity FROM items WHERE id IN ({first}, {last}) ORDER BY id")
    assert names == [["new 1", "1"], ["mine", "0"]]


def test_rows_that_are_never_free_are_given_up_and_said(filled: Trial) -> None:
    filled.set("database/backfill.py", "ROUNDS", 2)
    with filled.session("SELECT * FROM items WHERE name IN ('old 1', 'old 2000') FOR UPDATE"):
        code, output = filled.run("backfill", "new_names")
    assert code == 1
    assert f"{ROWS - 2} rows done; 2 are left, which somebody keeps locked" in output


def test_one_that_would_never_end_is_stopped_and_has_done_nothing(filled: Trial) -> None:
    code, output = filled.run("backfill", "nothing")
    assert code == 1
    assert "still to be done when they are done" in output
    assert how_often(filled) == [["0", str(ROWS)]]


def test_a_name_that_is_none_is_told_the_names_that_are(filled: Trial) -> None:
    code, output = filled.run("backfill", "nonsense")
    assert code == 1
    assert "There is no backfill nonsense; there are: new_names, nothing." in output
