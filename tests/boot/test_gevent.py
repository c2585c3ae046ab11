"""What holds of greenlets alone: they wait together, and for a loop that somebody blocks nobody waits for ever."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from boot.conftest import Send, Start, prepare
from boot.test_promises import get_request
from support.service import Answer, Service, wait_for

GEVENT = pytest.mark.parametrize("variant", ["gevent"], indirect=True, scope="session")
GTHREAD = pytest.mark.parametrize("variant", ["gthread"], indirect=True, scope="session")
CHOSEN = {"GUNICORN_WORKER_CLASS": "gevent"}


def ask(pool: ThreadPoolExecutor, service: Service, path: str, count: int) -> list[Future[Answer]]:
    return [pool.submit(service.get, path) for _ in range(count)]


def in_use(service: Service, count: int) -> None:
    service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") >= count, f"{count} in flight")


# Patched before anything else, and only where it was chosen


@pytest.mark.parametrize(
    ("variant", "environ"), [("gevent", {}), ("gthread", CHOSEN)], indirect=["variant"], scope="session"
)
def test_a_lock_made_at_import_is_one_of_greenlets(start: Start, environ: dict[str, str]) -> None:
    told = start(**environ).get("/trial/runtime").json
    assert all(module.startswith("gevent") for module in told["locks"]), told


@GTHREAD
def test_in_development_the_env_file_may_choose_it_too(folder: Path, venv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "service"
    shutil.copytree(folder, copy)
    shutil.copy(folder.parent / "app.db", copy.parent)
    (copy / ".env").write_text("GUNICORN_WORKER_CLASS=gevent\n")
    with prepare(copy, venv, tmp_path, {}) as service:
        assert all(module.startswith("gevent") for module in service.get("/trial/runtime").json["locks"])


@GTHREAD
def test_threads_have_nothing_of_gevent(service: Service) -> None:
    told = service.get("/trial/runtime").json
    assert not told["gevent"]
    assert not any(module.startswith("gevent") for module in told["locks"])


# The database


@GEVENT
def test_statements_wait_together_and_a_probe_does_not_wait_for_them(start: Start, database: str) -> None:
    """One worker, a connection each: a driver that blocks would run one statement after the other."""
    service = start(DATABASE_URL=database, WEB_CONCURRENCY="1", GUNICORN_THREADS="80")
    with ThreadPoolExecutor(8) as pool:
        assert [each.result().status for each in ask(pool, service, "/trial/query/0.1", 8)] == [200] * 8
        began = time.monotonic()
        assert service.get("/trial/query/0.5").status == 200
        alone, began = time.monotonic() - began, time.monotonic()
        queries = ask(pool, service, "/trial/query/0.5", 8)
        in_use(service, 8)
        assert service.get("/healthz/live").status == 200
        assert not any(query.done() for query in queries), "the probe was answered before any of them"
        answers = [query.result() for query in queries]
        assert time.monotonic() - began < 4 * alone
    assert [answer.status for answer in answers] == [200] * 8
    assert len({answer.json["pid"] for answer in answers}) == 1


@GEVENT
def test_async_views_wait_together_too_and_share_the_pool(start: Start, database: str) -> None:
    """A thread has one event loop at a time, and all greenlets share a thread."""
    service = start(DATABASE_URL=database, WEB_CONCURRENCY="1")
    with ThreadPoolExecutor(24) as pool:
        views = ("sleep-async", "query-async", "query")
        asked = [each for view in views for each in ask(pool, service, f"/trial/{view}/0.2", 8)]
        assert {each.result().status for each in asked} == {200}


@pytest.mark.with_all
@GEVENT
def test_requests_that_wait_for_a_connection_do_not_make_it_unready(start: Start, database: str) -> None:
    service = start(DATABASE_URL=database, WEB_CONCURRENCY="1")
    service.flask("db", "upgrade")
    with ThreadPoolExecutor(36) as pool:
        queries = ask(pool, service, "/trial/query/2.0", 36)  # four at a time
        in_use(service, 36)
        while not all(query.done() for query in queries):
            ready = service.get("/healthz/ready")
            assert ready.status == 200, ready.body
    assert {query.result().status for query in queries} == {200, 503}, "more than can be had in time"


@GEVENT
def test_connections_that_never_come_back_make_it_unready(start: Start, database: str) -> None:
    service = start(DATABASE_URL=database, WEB_CONCURRENCY="1")
    service.flask("db", "upgrade")
    assert service.get("/healthz/ready").status == 200
    with ThreadPoolExecutor(4) as pool:
        queries = ask(pool, service, "/trial/query/12.0", 4)
        wait_for(lambda: service.get("/healthz/ready").status == 503, "unready")
        assert [query.result().status for query in queries] == [200] * 4
    wait_for(lambda: service.get("/healthz/ready").status == 200, "ready again")


# The loop


@GEVENT
def test_a_worker_whose_loop_is_blocked_is_replaced(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--timeout 2")
    (blocked,) = service.workers()
    connections = send(service, get_request("/trial/spin/60.0"), get_request("/trial/sleep/60.0"))
    service.wait_for_workers(1, without={blocked})
    assert "in spin" in service.wait_for_log(level="ERROR", message="did not answer")["message"]
    for connection in connections:
        connection.close()
    assert service.get("/healthz/live").status == 200
