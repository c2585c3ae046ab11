"""The data layer on a real PostgreSQL: its price against bare SQLAlchemy, and pages of small and large tables.

Each server has a database of its own, with the same rows, in one PostgreSQL. They take turns, as in requests.py.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.common import APPS, Row, median, promise, server, service_folder
from benchmarks.requests import REQUESTS, compare, on_one_cpu
from benchmarks.traffic import request, send
from support.postgres import Postgres, postgres
from support.redis import redis
from support.service import Service

ROUTES = {
    "SELECT, one item": request("GET", "/api/items/1"),
    "SELECT and INSERT": request("POST", "/both", b'{"name": "Bolt", "quantity": 3}'),
}
ROUNDS, WARM_UP = 12, 400
SMALL, LARGE = 1_000, 1_000_000  # rows
PAGES = {"the first page": 0.0, "a page deep inside": 0.9}  # how much of the table is before it
BOUND = 1.2  # times as long as a page of the small table


def measure() -> list[Row]:
    folder = service_folder() / "app" / "both"
    folder.mkdir()
    shutil.copy(APPS / "data_routes.py", folder / "routes.py")
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        cache = stack.enter_context(redis(Path(stack.enter_context(tempfile.TemporaryDirectory()))))

        def start(kind: str, rows: int, **settings: str) -> Service:
            url = fill(database, rows)
            return stack.enter_context(on_one_cpu(server(kind, settings={"DATABASE_URL": url, **settings})))

        services = {
            "bare Flask and SQLAlchemy": start("bare_postgres", SMALL),
            "the service": start("gthread", SMALL),
            "the service, with Redis": start("gthread", SMALL, REDIS_URL=cache.url),
        }
        rows: list[Row] = []
        for what, message in ROUTES.items():
            for service in services.values():
                send(service.port, message, WARM_UP)
            rows += compare(what, message, services, ROUNDS)
        return rows + list(compare_pages(start("gthread", SMALL), start("gthread", LARGE)))


def fill(database: Postgres, rows: int) -> str:
    """The URL of a new database with so many items."""
    url = database.create()
    server("gthread", settings={"DATABASE_URL": url}).flask("db", "upgrade")
    database.sql(
        "INSERT INTO items (name, quantity, version, created_at, updated_at) "
        f"SELECT 'Bolt ' || number, number, 1, now(), now() FROM generate_series(1, {rows}) AS number",
        url,
    )
    database.sql("VACUUM ANALYZE items", url)
    return url


def compare_pages(small: Service, large: Service) -> Iterator[Row]:
    """Time as a client sees it: what a larger table costs more, it costs in the database."""
    for what, share in PAGES.items():
        messages = {
            service.port: request("GET", f"/api/items?cursor={int(share * rows):016x}")
            for service, rows in ((small, SMALL), (large, LARGE))
        }
        for port, message in messages.items():
            send(port, message, WARM_UP)
        rounds = [
            [send(port, message, REQUESTS) / REQUESTS * 1e6 for port, message in messages.items()]
            for _ in range(ROUNDS)
        ]
        short, long = (median(times) for times in zip(*rounds, strict=True))
        ratio = median(second / first for first, second in rounds)
        yield Row(
            f"{what} of {LARGE:,} rows",
            f"{long:.0f} µs",
            f"of {SMALL:,} rows {short:.0f} µs",
            f"{ratio:.2f}",
            promise(ratio, BOUND, "times"),
        )
