"""Run in a service's environment: microseconds of one SELECT in a transaction, by the way its limit is set.

Each way has an engine like the service's, with one connection that is taken from the pool, tested and given back each
time. The ways take turns; a figure is the median of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from typing import Any

from app.database import postgres
from sqlalchemy import Engine, create_engine, event, text

ROUNDS, TIMES = 40, 100
SELECT = text("SELECT 1")
LIMIT = "SET LOCAL statement_timeout = 20000"


def engine(**connect_args: Any) -> Engine:
    options = postgres.engine_options(1, 5)
    options["connect_args"] |= connect_args
    return create_engine(os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"), **options)


def ours() -> Engine:
    made = engine()
    postgres.set_limits(made, 5)
    return made


def at_the_event() -> Engine:
    """The way of SQLAlchemy's documentation to emit one's own BEGIN."""
    made = engine(autocommit=True)
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql(f"BEGIN; {LIMIT}"))
    return made


def by_itself() -> Engine:
    made = engine()
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql(LIMIT))
    return made


WAYS = {
    "nothing": engine(),
    "ours: in the message that begins, two limits and a bound on every wait": ours(),
    "autocommit, and BEGIN with the limit at SQLAlchemy's event": at_the_event(),
    "SET LOCAL in a message of its own": by_itself(),
    "options=-c, which PgBouncer refuses": engine(options="-c statement_timeout=20000"),
}


def select(engine: Engine) -> float:
    began = time.perf_counter()
    for _ in range(TIMES):
        with engine.connect() as connection:
            connection.execute(SELECT)
    return (time.perf_counter() - began) / TIMES * 1e6


if __name__ == "__main__":
    for one in WAYS.values():
        select(one)
    rounds = [{way: select(one) for way, one in WAYS.items()} for _ in range(ROUNDS)]
    print(json.dumps({way: statistics.median(found[way] for found in rounds) for way in WAYS}))
