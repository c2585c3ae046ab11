"""The service on a real PostgreSQL: what it does when that is slow, stuck, frozen, restarted or shared by workers."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from boot.conftest import THREADED, Changed, Start
from support.load import Load
from support.postgres import Postgres, postgres
from support.service import Service, wait_for

# The same promises in less time.
HASTE = {
    "app/capacity.py": [('"statement": 20.0', '"statement": 0.5'), ('"request": 25.0', '"request": 3.0')],
    "app/database/__init__.py": [("CONNECT_TIMEOUT = 5 ", "CONNECT_TIMEOUT = 2 ")],
}
# A feature that has used the database by the time that workers are forked.
EAGER_ROUTES = """
from app.extensions import db
from flask import Blueprint
from sqlalchemy import text

blueprint = Blueprint("eager", __name__)


@blueprint.record
def ask(state):
    with state.app.app_context():
        db.session.execute(text("SELECT 1"))
"""
EAGER = {"app/eager/routes.py": [("", EAGER_ROUTES)]}
OURS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'my-service'"


@pytest.mark.default_class
def test_an_item_lives_through_create_read_change_list_and_delete(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    service = start(DATABASE_URL=migrated)
    created = service.request("POST", "/api/items", {"name": "Bolt", "quantity": 3})
    assert created.status == 201
    path = created.headers["Location"]
    assert service.get(path).json == created.json
    assert service.request("PATCH", path, {"quantity": 5}).json["quantity"] == 5
    assert [item["id"] for item in service.get("/api/items").json["items"]] == [created.json["id"]]
    assert service.request("DELETE", path).status == 204
    assert service.get("/healthz/ready").json["status"] == "ok"
    assert postgres_server.sql(OURS, migrated), "connections that can be told apart by name"


# Limits


@pytest.mark.default_class
def test_every_transaction_has_its_limits_and_no_connection_keeps_them(start: Start, migrated: str) -> None:
    told = start(DATABASE_URL=migrated).get("/trial/connection").json
    assert (told["statement_timeout"], told["idle_in_transaction_session_timeout"]) == ("20s", "25s")
    assert told["transaction_read_only"] == "off"


@pytest.mark.default_class
def test_a_statement_that_takes_too_long_is_cancelled_and_said_so(changed: Changed, migrated: str) -> None:
    service = changed(HASTE, DATABASE_URL=migrated)
    answer = service.get("/trial/query/60.0", {"X-Request-ID": "the-slow-one"})
    assert answer.status == 504
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Retry-After" not in answer.headers
    line = service.wait_for_log(request_id="the-slow-one", level="ERROR")
    assert "QueryCanceled" in line["exc_info"]
    assert len([line for line in service.log() if line["level"] == "ERROR"]) == 1
    assert service.get("/trial/query/0.1").status == 200


@pytest.mark.default_class
def test_without_its_limits_a_statement_goes_on(changed: Changed, migrated: str) -> None:
    defect = {"app/database/postgres.py": [("_get_tx_start_command() + LIMITS", "_get_tx_start_command()")]}
    service = changed(HASTE | defect, DATABASE_URL=migrated)
    assert service.get("/trial/query/0.8").status == 200


@THREADED
@pytest.mark.default_class
def test_a_request_that_is_stuck_loses_its_locks(changed: Changed, migrated: str, postgres_server: Postgres) -> None:
    service = changed(HASTE, DATABASE_URL=migrated)
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(service.get, "/trial/hold/5.0", timeout=30)
        locked = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
        wait_for(lambda: postgres_server.sql(locked, migrated), "the lock is held")
        wait_for(lambda: not postgres_server.sql(locked, migrated), "the lock is let go")
        assert not stuck.done()
        assert service.get("/api/items").status == 200
        assert stuck.result().status == 503


# A database that goes away


@pytest.mark.default_class
def test_connections_that_the_database_ends_cost_what_was_in_flight_and_no_more(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    service = start(DATABASE_URL=migrated)
    load = Load(service.port, total=600).start()
    load.wait_for_answers(150)
    postgres_server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid != pg_backend_pid()",
        migrated,
    )
    outcomes = load.wait().outcomes
    del outcomes["close"]
    in_flight = outcomes.pop("status 503", 0)
    assert in_flight <= load.clients
    assert outcomes == {"answered": 600 - in_flight}


@pytest.mark.default_class
def test_a_restart_under_load_is_answered_with_503_and_healed_at_once(start: Start) -> None:
    with postgres() as server:
        service = start(DATABASE_URL=server.url)
        service.flask("db", "upgrade")
        load = Load(service.port, total=100_000).start()
        load.wait_for_answers(100)
        server.stop()
        refused = service.get("/api/items")
        assert refused.status == 503
        assert refused.json["title"] == "Service Unavailable"
        assert refused.headers["Retry-After"] == "5"
        server.start()
        wait_for(lambda: service.get("/api/items").status == 200, "items are listed again")
        before = load.outcomes.copy()
        load.wait_for_answers(before["answered"] + 100)
        assert load.outcomes["status 503"] - before["status 503"] <= load.clients, "those on their way"
        load.end()
        assert set(load.wait().outcomes) <= {"answered", "close", "status 503"}
        assert service.get("/healthz/ready").json["status"] == "ok"


@pytest.mark.default_class
def test_a_frozen_database_holds_up_no_probe_and_no_request_without_end(changed: Changed) -> None:
    with postgres() as server:
        # A question to a connection and a new one take two seconds each: a sync worker needs time for both.
        haste = HASTE | {
            "app/capacity.py": [('"statement": 20.0', '"statement": 0.5'), ('"request": 25.0', '"request": 6.0')]
        }
        service = changed(haste, DATABASE_URL=server.url)
        service.flask("db", "upgrade")
        assert service.get("/api/items").status == 200
        with ThreadPoolExecutor() as pool:
            under_way = pool.submit(service.get, "/trial/query/0.4", timeout=30)
            running = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
            wait_for(lambda: server.sql(running), "the statement runs")
            server.signal(signal.SIGSTOP)
            began = time.monotonic()
            ready = service.get("/healthz/ready")
            assert ready.status == 503
            assert ready.json["checks"]["database"]["state"] == "down"
            assert service.get("/healthz/live").status == 200
            assert time.monotonic() - began < 2, "each probe has a second"
            assert service.get("/api/items").status == 503  # by the pool's question, and a new connection
            assert under_way.result().status == 503
        server.signal(signal.SIGCONT)
        wait_for(lambda: service.get("/healthz/ready").status == 200, "it is ready again")
        assert service.get("/api/items").status == 200


@THREADED
@pytest.mark.default_class
def test_a_request_for_which_no_connection_becomes_free_is_told_to_come_again(changed: Changed, migrated: str) -> None:
    impatient = {
        "app/database/__init__.py": [("POOL_TIMEOUT = 5 ", "POOL_TIMEOUT = 0.3 ")],
        "app/database/postgres.py": [('"pool_size": pool_size', '"pool_size": 1')],
    }
    service = changed(impatient, DATABASE_URL=migrated, WEB_CONCURRENCY="1")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(service.get, "/trial/query/1.5")
        service.wait_for_metrics(lambda metrics: metrics.total("server_threads_busy") == 1, "the slow one is in hand")
        full = service.get("/api/items")
        assert (full.status, full.headers["Retry-After"]) == (503, "5")
        assert slow.result().status == 200


# Forks


def mix_ups(service: Service, workers: int) -> list[object]:
    """The connections that more than one worker was answered by, and what is no answer at all."""
    seen = defaultdict(set)
    failed: list[object] = []

    def ask(_: object) -> None:
        try:
            told = service.get("/trial/connection")
        except OSError as error:  # two wait for one answer, and the other has read it
            failed.append(error)
            return
        if told.status == 200:
            seen[told.json["backend"]].add(told.json["worker"])
        else:
            failed.append(told)

    def all_asked() -> bool:
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(ask, range(40)))
        return bool(failed) or len(set.union(*seen.values())) == workers

    wait_for(all_asked, f"{workers} workers were asked")
    return [backend for backend, worker in seen.items() if len(worker) > 1] + failed


def test_workers_share_no_connection_though_the_master_has_used_one(
    changed: Changed, migrated: str, postgres_server: Postgres
) -> None:
    service = changed(EAGER, DATABASE_URL=migrated, WEB_CONCURRENCY="3")
    service.wait_for_workers(3)
    assert len(postgres_server.sql(OURS, migrated)) == 1, "the master's"
    assert mix_ups(service, 3) == []
    load = Load(service.port, total=400).start().wait()
    assert load.outcomes["answered"] == 400
    assert len(postgres_server.sql(OURS, migrated)) <= 1 + 3 * 4


@pytest.mark.with_all
@pytest.mark.default_class
def test_a_pool_that_came_through_the_fork_would_be_shared(changed: Changed, migrated: str) -> None:
    defect = {"app/server/hooks.py": [("forget_connections(application())", "pass")]}
    service = changed(EAGER | defect, DATABASE_URL=migrated, WEB_CONCURRENCY="3")
    service.wait_for_workers(3)
    assert mix_ups(service, 3)
