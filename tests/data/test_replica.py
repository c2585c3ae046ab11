"""Reading from a replica: two real servers, one of which follows the other by streaming replication."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boot.conftest import Changed, Start, prepare
from support.load import Load
from support.postgres import Postgres, postgres, replica
from support.service import Service, wait_for

pytestmark = pytest.mark.default_class
Pair = tuple[Postgres, Postgres]


@pytest.fixture(scope="module")
def pair(folder: Path, venv: Path) -> Iterator[Pair]:
    """A primary whose database is migrated, and its replica."""
    with postgres() as primary:
        Service(folder, venv, folder.parent, {"DATABASE_URL": primary.url}).flask("db", "upgrade")
        with replica(primary) as follower:
            yield primary, follower


@pytest.fixture
def follower(pair: Pair) -> Iterator[Postgres]:
    """The replica, to be frozen and killed; the next test finds it well."""
    yield pair[1]
    if pair[1].process.poll() is None:
        pair[1].signal(signal.SIGCONT)
    else:
        pair[1].start()


@pytest.fixture(scope="module")
def service(folder: Path, venv: Path, tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Service]:
    environ = {"DATABASE_URL": pair[0].url, "DATABASE_REPLICA_URL": pair[1].url}
    with prepare(folder, venv, tmp_path_factory.mktemp("replica"), environ) as service:
        assert service.get("/healthz/ready").json["checks"]["replica"]["state"] == "up"
        yield service


def on_replica(service: Service) -> bool:
    told: bool = service.get("/trial/read-only").json["replica"]
    return told


@pytest.mark.parametrize("path", ["/trial/read-only", "/trial/read-only-async"])
def test_a_marked_view_reads_from_the_replica_in_a_transaction_that_cannot_write(service: Service, path: str) -> None:
    told = service.get(path).json
    assert (told["replica"], told["transaction_read_only"]) == (True, "on")
    assert told["statement_timeout"] == "20s"


def test_every_other_view_reads_from_the_primary(service: Service) -> None:
    told = service.get("/trial/connection").json
    assert (told["replica"], told["transaction_read_only"]) == (False, "off")


@pytest.mark.parametrize(("written", "there"), [("an object", False), ("text", False), ("nothing", True)])
def test_a_request_that_wrote_reads_from_the_primary(service: Service, written: str, there: bool) -> None:
    assert service.get("/trial/read-only", {"X-Writes": written}).json["replica"] == there


def test_what_the_replica_lacks_for_a_moment_is_missed_only_by_views_that_may(service: Service, pair: Pair) -> None:
    follower = pair[1]
    follower.sql("SELECT pg_wal_replay_pause()")
    try:
        created = service.request("POST", "/api/items", {"name": "Late", "quantity": 1})
        assert service.get(created.headers["Location"]).json == created.json
        listed = "/api/items?cursor=" + f"{created.json['id'] - 1:016x}"
        assert service.get(listed).json["items"] == []
    finally:
        follower.sql("SELECT pg_wal_replay_resume()")
    wait_for(lambda: service.get(listed).json["items"] == [created.json], "the replica has caught up")


def test_a_marked_view_that_writes_fails_with_a_sentence_that_says_why(service: Service) -> None:
    assert service.get("/trial/read-only-writes").status == 500
    line = service.wait_for_log(level="ERROR", exc_info="RuntimeError")
    assert "trial.read_only_writes is marked with @database.read_only, and writes" in line["exc_info"]
    assert on_replica(service), "that was no fault of the replica's"


def test_a_replica_that_is_killed_under_load_costs_no_request(start: Start, pair: Pair, follower: Postgres) -> None:
    service = start(DATABASE_URL=pair[0].url, DATABASE_REPLICA_URL=follower.url)
    load = Load(service.port, total=100_000, path="/trial/read-only/0.01").start()
    load.wait_for_answers(100)
    follower.process.send_signal(signal.SIGQUIT)  # every connection ends in the middle of what it does
    follower.process.wait(20)
    load.wait_for_answers(load.outcomes["answered"] + 300)
    ready = service.get("/healthz/ready")
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    assert ready.json["checks"]["replica"] | {"ms": 0} == {"state": "down", "required": False, "ms": 0}
    follower.start()
    wait_for(lambda: on_replica(service), "reads go to the replica again")
    load.end()
    assert set(load.wait().outcomes) <= {"answered", "close"}
    wait_for(lambda: service.get("/healthz/ready").json["status"] == "ok", "all is well")
    told = [line["message"] for line in service.log() if line["message"].startswith("replica is")]
    assert all(
        line.startswith(("replica is down (OperationalError), was up", "replica is up, was down")) for line in told
    )
    assert len(told) <= 4, "one line a worker at each change"


def test_a_view_is_not_run_again_where_nothing_says_so(changed: Changed, pair: Pair, follower: Postgres) -> None:
    fault = ("                breaker.trip(error)\n            elif", "                raise\n            elif")
    environ = {"DATABASE_URL": pair[0].url, "DATABASE_REPLICA_URL": follower.url}
    service = changed({"app/database/replica.py": [fault]}, **environ)
    load = Load(service.port, total=100_000, path="/trial/read-only/0.01").start()
    load.wait_for_answers(100)
    follower.process.send_signal(signal.SIGQUIT)
    follower.process.wait(20)
    wait_for(lambda: load.outcomes["status 503"], "a request is lost")
    load.end()
    load.wait()


def test_a_frozen_replica_holds_requests_up_once_and_not_for_long(service: Service, follower: Postgres) -> None:
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: service.get("/trial/read-only"), range(40)))  # every pool has connections
        follower.signal(signal.SIGSTOP)
        held_up = list(clients.map(lambda _: service.get("/trial/read-only", timeout=15), range(40)))
    assert {(answer.status, answer.json["replica"]) for answer in held_up} == {(200, False)}
    assert service.get("/healthz/ready").json["status"] == "degraded"
    began = time.monotonic()
    for _ in range(20):
        assert service.get("/trial/read-only").status == 200
    assert time.monotonic() - began < 2, "a replica that is down is not asked again by requests"
    follower.signal(signal.SIGCONT)
    wait_for(lambda: on_replica(service), "reads go to the replica again")
