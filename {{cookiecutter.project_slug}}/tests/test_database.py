"""What an error of the database is to a client and to an operator; the boot tests of the template meet real ones."""

from __future__ import annotations

import pytest
from psycopg import errors
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError, TimeoutError
from werkzeug.exceptions import HTTPException

from app.database.errors import as_answer, explain

URL = make_url("postgresql+psycopg://app:canary@db.internal/shop")


def wrap(error: errors.Error, statement: str | None = "SELECT 1", *, lost: bool = False) -> DBAPIError:
    kind = OperationalError if isinstance(error, errors.OperationalError) else ProgrammingError
    return kind(statement, None, error, connection_invalidated=lost)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (wrap(errors.OperationalError("connection failed: Connection refused"), None), 503),
        (wrap(errors.AdminShutdown("terminating connection"), lost=True), 503),
        (wrap(errors.DeadlockDetected("deadlock detected")), 503),
        (wrap(errors.IdleInTransactionSessionTimeout("terminating connection"), lost=True), 503),
        (TimeoutError("QueuePool limit"), 503),
        (wrap(errors.QueryCanceled("canceling statement due to statement timeout")), 504),
    ],
)
def test_a_database_that_does_not_serve_is_told_from_one_that_is_slow(error: Exception, status: int) -> None:
    answer = as_answer(error)
    assert isinstance(answer, HTTPException)
    assert answer.code == status
    assert ("Retry-After" in dict(answer.get_headers())) == (status == 503)


@pytest.mark.parametrize(
    "error",
    [
        wrap(errors.UndefinedTable('relation "items" does not exist')),
        OperationalError("SELECT 1", None, Exception("no such table: items")),
        ZeroDivisionError(),
    ],
)
def test_a_fault_of_ours_stays_one(error: Exception) -> None:
    assert as_answer(error) is None
    assert explain(error, URL) == ""


def test_a_line_names_the_place_and_the_mend_and_no_password() -> None:
    error = wrap(errors.OperationalError('connection failed: FATAL:  password "canary" is wrong\n\tA hint'), None)
    line = explain(error, URL)
    assert line.startswith('Cannot use the database shop at db.internal:5432: password "***" is wrong. See that user')
    assert "\n" not in line
