"""Through a real PgBouncer, in transaction mode and with the rendered file: no errors, nothing that leaks, right sizes."""

from __future__ import annotations

import configparser
import http.client
import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boot.conftest import THREADED, Changed, Start, prepare
from boot.test_numbers import preflight
from support.answers import VARIANTS
from support.pgbouncer import INI, pgbouncer
from support.postgres import Postgres
from support.service import SECRET_KEY, Service
from support.template import SERVICE, Render, load

pytestmark = pytest.mark.default_class
capacity = load(SERVICE / "app" / "capacity.py")
NAIVE = {"app/database/postgres.py": [('"prepare_threshold": None', '"prepare_threshold": 5')]}
LEAKY = {"app/database/postgres.py": [("; SET LOCAL statement_timeout", "; SET statement_timeout")]}


@pytest.fixture(scope="module")
def pooler(folder: Path, postgres_server: Postgres) -> Iterator[Postgres]:
    with pgbouncer(folder, postgres_server) as pooler:
        yield pooler


def through(pooler: Postgres, url: str) -> str:
    """The URL of the same database by way of the pooler."""
    return pooler.url_of(url.rpartition("/")[2])


def work(service: Service, requests: int, *, only_create: bool = False, clients: int = 8) -> Counter[int]:
    """How often each status was the answer to requests that create, read, change and list items."""
    statuses: Counter[int] = Counter()

    def client(_: int) -> None:
        connection, path = service.connect(), "/api/items"
        ask = [("POST", {"name": "Bolt"}), ("GET", None), ("PATCH", {"quantity": 7}), ("GET", None)]
        ask = ask[:1] if only_create else ask
        for number in range(requests // clients):
            method, body = ask[number % len(ask)]
            target = "/api/items" if number % len(ask) in (0, 3) else path
            headers = {"Content-Type": "application/json"} if body else {}
            try:
                connection.request(method, target, json.dumps(body) if body else None, headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                statuses[0] += 1
                connection.close()
                continue
            path = response.headers.get("Location", path)
            statuses[response.status] += 1
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return statuses


def test_thousands_of_reads_and_writes_through_it_all_succeed(
    start: Start, pooler: Postgres, migrated: str, postgres_server: Postgres
) -> None:
    statuses = work(start(DATABASE_URL=through(pooler, migrated)), 2400)
    assert statuses == {201: 600, 200: 1800}
    assert postgres_server.sql("SELECT count(*), sum(quantity) FROM items", migrated) == [["600", "4200"]]


@pytest.mark.with_all
@THREADED
def test_prepared_statements_through_it_would_fail(changed: Changed, pooler: Postgres, migrated: str) -> None:
    # psycopg prepares what it has seen five times, and begins to count again at each rollback.
    statuses = work(changed(NAIVE, DATABASE_URL=through(pooler, migrated)), 400, only_create=True)
    assert statuses.keys() - {201}


def seen_by_others(pooler: Postgres, url: str) -> set[str]:
    """The statement timeouts of what else connects to the pooler."""
    return {pooler.sql("SHOW statement_timeout", through(pooler, url))[0][0] for _ in range(8)}


def test_limits_hold_for_the_transaction_and_for_nobody_else(
    changed: Changed, start: Start, pooler: Postgres, migrated: str
) -> None:
    service = start(DATABASE_URL=through(pooler, migrated))
    assert service.get("/trial/connection").json["statement_timeout"] == "20s"
    assert seen_by_others(pooler, migrated) == {"0"}
    leaky = changed(LEAKY, DATABASE_URL=through(pooler, migrated))
    leaky.request("POST", "/api/items", {"name": "Bolt"})
    assert "20s" in seen_by_others(pooler, migrated)


# Sizes


def read_ini(folder: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(folder / INI)
    return parser["pgbouncer"]


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_its_numbers_are_those_of_the_capacity(render: Render, answers: dict[str, str]) -> None:
    folder = render(**answers)
    given = json.loads((folder / ".template.json").read_text())["answers"]
    limits = capacity.Limits(float(given["cpus"]), int(given["memory_mb"]), "")
    plan, ini = capacity.plan(limits, given["worker_class"]), read_ini(folder)
    assert ini.getint("max_client_conn") == plan.connections(int(given["max_replicas"]))
    assert ini.getint("default_pool_size") == plan.pooled(int(given["max_replicas"])) < capacity.MAX_CONNECTIONS
    assert ini.getint("max_db_connections") == ini.getint("default_pool_size")


@pytest.mark.parametrize(("platform", "file"), [("compose", "compose.ini"), ("kubernetes", "kubernetes.ini")])
def test_a_file_that_is_laid_over_it_changes_what_it_says_and_nothing_else(
    render: Render, postgres_server: Postgres, platform: str, file: str
) -> None:
    """A section that is named again puts all of its settings back to PgBouncer's own."""
    folder = render(platform=platform)
    with pgbouncer(folder, postgres_server, over=file) as pooler:
        shown = {row[0]: row[1] for row in pooler.sql("SHOW CONFIG", pooler.url_of("pgbouncer"))}
        assert pooler.sql("SELECT 1", pooler.url_of("postgres")) == [["1"]], "it finds the database"
    over = dict(re.findall(r"^(\w+) = (.*)$", (folder / "deploy/pgbouncer" / file).read_text(), re.M))
    said = {**read_ini(folder), **over}
    for name in ("auth_file", "listen_port"):  # of this machine
        said.pop(name)
    assert {name: shown[name] for name in said} == said


def test_who_waits_for_a_connection_waits_as_long_as_without_it(render: Render) -> None:
    source = (SERVICE / "app" / "database" / "__init__.py").read_text()
    assert f"POOL_TIMEOUT = {read_ini(render())['query_wait_timeout']} " in source


# Preflight


def checked(folder: Path, venv: Path, state: Path, **environ: str) -> dict[str, dict[str, object]]:
    production = {"APP_ENV": "production", "SECRET_KEY": SECRET_KEY, "TRUSTED_PROXY_HOPS": "1", **environ}
    return preflight(prepare(folder, venv, state, production))


@THREADED  # of which two workers are started here, as many as the sizes are made for
def test_preflight_asks_the_pooler_for_its_numbers(
    folder: Path, venv: Path, tmp_path: Path, pooler: Postgres, migrated: str, postgres_server: Postgres, variant: str
) -> None:
    urls = {"DATABASE_URL": through(pooler, migrated), "DATABASE_MIGRATION_URL": migrated}
    well = checked(folder, venv, tmp_path, **urls)
    needed = capacity.plan(capacity.Limits(1, 512, ""), variant, workers=2).connections(10)
    assert well["connections"]["ok"]
    assert f"up to {needed} of the {needed} connections to the pooler" in str(well["connections"]["detail"])
    assert well["pooler"] | {"mend": ""} == {
        "check": "pooler",
        "ok": True,
        "detail": "migrations go past it",
        "mend": "",
    }
    for wrong in ({"max_client_conn": needed - 1}, {"default_pool_size": 198}):
        with pgbouncer(folder, postgres_server, **wrong) as small:
            found = checked(folder, venv, tmp_path, **urls | {"DATABASE_URL": through(small, migrated)})
        assert not found["connections"]["ok"]
        assert f"max_client_conn = {needed}" in str(found["connections"]["mend"])


def test_a_pooler_that_tells_nothing_is_taken_for_ours(
    folder: Path, venv: Path, tmp_path: Path, migrated: str, postgres_server: Postgres
) -> None:
    with pgbouncer(folder, postgres_server, stats_users="") as silent:
        found = checked(folder, venv, tmp_path, DATABASE_URL=through(silent, migrated), DATABASE_MIGRATION_URL=migrated)
    assert found["connections"]["ok"]
    assert "it did not tell" in str(found["connections"]["detail"])


def test_migrations_that_would_go_through_it_are_found(
    folder: Path, venv: Path, tmp_path: Path, pooler: Postgres, migrated: str
) -> None:
    found = checked(folder, venv, tmp_path, DATABASE_URL=through(pooler, migrated))
    assert not found["pooler"]["ok"]
    assert "DATABASE_MIGRATION_URL" in str(found["pooler"]["mend"])


def test_migrations_go_past_it(start: Start, folder: Path, venv: Path, tmp_path: Path, database: str) -> None:
    nobody = "postgresql://app:canary@127.0.0.1:1/app"
    prepare(folder, venv, tmp_path, {"DATABASE_URL": nobody, "DATABASE_MIGRATION_URL": database}).flask("db", "upgrade")
    assert start(DATABASE_URL=database).get("/healthz/ready").status == 200
