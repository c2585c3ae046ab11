"""Probes: what keeps an instance in traffic, what takes it out, and that no dependency can hold a probe up."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import REGISTRY
from sqlalchemy import text

from app import database, health
from app.extensions import db
from app.settings import SettingsError
from tests.conftest import LogLines, MakeApp

DEADLINE = health.DEADLINE  # as it is in production; here probes have more patience


class Payments:
    """A dependency that a test takes down and brings up."""

    def __init__(self, app: Flask, *, up: bool) -> None:
        self.up = up
        health.add_check(app, "payments", self.ask)

    def ask(self) -> health.State:
        if not self.up:
            raise ConnectionError("canary")
        return "up"


def ready(app: Flask) -> tuple[int, str, dict[str, str]]:
    """The status code of readiness, its status, and the state of each check."""
    response = app.test_client().get("/healthz/ready")
    body = response.get_json()
    return response.status_code, body["status"], {name: check["state"] for name, check in body["checks"].items()}


def test_live_and_ready(client: FlaskClient) -> None:
    live, ready = client.get("/healthz/live"), client.get("/healthz/ready")
    assert (live.status_code, live.get_json()) == (200, {"status": "ok"})
    checks = ready.get_json()["checks"]
    times = [check.pop("ms") for check in checks.values()]
    well = {"state": "up", "required": True}
    assert (ready.status_code, ready.get_json()["status"]) == (200, "ok")
    assert checks == {"database": well, "migrations": well}
    assert all(isinstance(ms, int) for ms in times)


def test_a_required_dependency_down_takes_no_traffic_but_restarts_nothing(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}")  # a folder: it cannot be opened
    assert ready(app) == (503, "unavailable", {"database": "down", "migrations": "down"})
    assert app.test_client().get("/healthz/live").status_code == 200


def test_an_optional_dependency_down_is_told_and_stays_in_traffic(app: Flask, log_lines: LogLines) -> None:
    payments = Payments(app, up=True)
    for up, status, told in [
        (True, "ok", []),
        (False, "degraded", [("WARNING", "payments is down (ConnectionError), was up")]),
        (True, "ok", [("INFO", "payments is up, was down")]),
    ]:
        payments.up = up
        assert [ready(app)[:2], ready(app)[:2]] == [(200, status), (200, status)]
        assert REGISTRY.get_sample_value("dependency_up", {"name": "payments"}) == up
        assert [(line["level"], line["message"]) for line in log_lines()] == told


def test_a_check_of_a_feature_can_be_required(app: Flask) -> None:
    Payments(app, up=False)
    health.require(app, ["payments"])
    assert ready(app)[:2] == (503, "unavailable")


@pytest.mark.parametrize(("required", "status"), [("database", 200), ("migrations", 503), ("migrations,database", 503)])
def test_readiness_required_says_what_is_required(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, required: str, status: int
) -> None:
    monkeypatch.setattr(database, "compare_schema", lambda: "behind")
    assert ready(make_app(READINESS_REQUIRED=required))[0] == status


def test_an_unknown_name_in_readiness_required_is_refused(make_app: MakeApp) -> None:
    with pytest.raises(SettingsError, match="READINESS_REQUIRED: has no check databse; there are: database, migra"):
        make_app(READINESS_REQUIRED="databse,migrations")


def test_a_check_that_hangs_holds_up_no_probe_and_costs_one_thread(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEADLINE < 1
    released = threading.Event()
    threads: list[threading.Thread] = []

    def hang() -> health.State:
        threads.append(threading.current_thread())
        released.wait(30)
        return "up"

    health.add_check(app, "payments", hang)
    with monkeypatch.context() as impatience:
        impatience.setattr(health, "DEADLINE", 0.1)
        assert [ready(app)[2]["payments"] for _ in range(3)] == ["down"] * 3
    (thread,) = threads
    released.set()
    thread.join(30)
    assert ready(app)[2]["payments"] == "up"


def test_a_pool_in_full_use_is_no_database_that_is_down(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DEADLINE", DEADLINE)
    with app.app_context(), ExitStack() as held:
        for _ in range(15):  # all that the pool gives out
            held.enter_context(db.engine.connect())
        assert ready(app)[:2] == (200, "ok")
        monkeypatch.setattr(database, "POOL_TIMEOUT", 0)  # as if none had been free for so long
        assert ready(app)[:2] == (503, "unavailable")


def test_probes_at_the_same_moment_tell_a_change_once(app: Flask, log_lines: LogLines) -> None:
    released = threading.Event()
    health.add_check(app, "payments", lambda: "behind" if released.wait(30) else "up")
    answers: list[int] = []
    probes = [threading.Thread(target=lambda: answers.append(ready(app)[0])) for _ in range(8)]
    for probe in probes:
        probe.start()
    released.set()
    for probe in probes:
        probe.join()
    assert answers == [200] * 8
    assert [line["message"] for line in log_lines()] == ["payments is behind, was up"]


@pytest.mark.parametrize(
    ("standing", "state"),
    [
        (None, "behind"),  # never migrated
        ([], "behind"),
        (["old"], "behind"),
        (["new"], "up"),
        (["newer"], "up"),  # of the next release, which this one does not know
    ],
)
def test_only_a_schema_before_our_newest_migration_is_behind(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, standing: list[str] | None, state: str
) -> None:
    monkeypatch.setattr(database, "_revisions", lambda: (frozenset({"old", "new"}), frozenset({"old"})))
    app = make_app()
    if standing is not None:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            for revision in standing:
                connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
    assert ready(app)[2]["migrations"] == state


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "attacker.example", "", "no host at all"])
def test_probes_answer_whatever_the_host(make_app: MakeApp, host: str) -> None:
    client = make_app(TRUSTED_HOSTS="shop.example", READINESS_REQUIRED="database").test_client()
    statuses = [
        client.get(path, headers={"Host": host}).status_code for path in ("/healthz/live", "/healthz/ready", "/")
    ]
    assert statuses == [200, 200, 400]
