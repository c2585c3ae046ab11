"""What a deploy would stumble over is found before it does: each fault has a healthy twin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask import Flask

from app import database, preflight
from app.capacity import Limits, load_answers
from app.extensions import db
from app.preflight import Finding, examine
from tests.conftest import MakeApp

PRODUCTION = {"APP_ENV": "production", "DATABASE_URL": "postgresql://app:canary@127.0.0.1:1/app"}


@pytest.fixture(autouse=True)
def a_machine_of_one_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_limits", lambda: Limits(1, 1024, "a test"))


def find(app: Flask, check: str) -> Finding:
    with app.app_context():
        return next(finding for finding in examine(app) if finding.check == check)


@pytest.mark.parametrize(
    ("check", "faulty", "healthy"),
    [
        ("memory", {"WEB_CONCURRENCY": "40"}, {"WEB_CONCURRENCY": "4"}),
        ("ports", {"METRICS_PORT": "8000"}, {"METRICS_PORT": "8001"}),
        ("ports", {"GUNICORN_BIND": "0.0.0.0:9102"}, {"GUNICORN_BIND": "unix:/run/app.sock"}),
        ("proxies", {**PRODUCTION}, {**PRODUCTION, "TRUSTED_PROXY_HOPS": "1"}),
        ("proxies", {**PRODUCTION}, {}),
        ("database", {"DATABASE_URL": PRODUCTION["DATABASE_URL"]}, {}),
        ("redis", {"REDIS_URL": "redis://:canary@127.0.0.1:1/0", "LOG_LEVEL": "ERROR"}, {}),
    ],
)
def test_a_setting_that_means_an_outage_is_found(
    make_app: MakeApp, check: str, faulty: dict[str, str], healthy: dict[str, str]
) -> None:
    found = find(make_app(**faulty), check)
    assert not found.ok
    assert found.mend
    assert "canary" not in str(found)
    assert find(make_app(**healthy), check).ok


@pytest.mark.parametrize(("driver", "waits"), [("psycopg", "wait_c"), ("psycopg2", "")])
def test_a_driver_that_blocks_all_greenlets_is_found(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, driver: str, waits: str
) -> None:
    greenlets, threads = (make_app(**PRODUCTION, GUNICORN_WORKER_CLASS=name) for name in ("gevent", "gthread"))
    in_development = make_app(APP_ENV="development", GUNICORN_WORKER_CLASS="gevent")
    monkeypatch.delenv("PSYCOPG_WAIT_FUNC", raising=False)
    assert find(greenlets, "driver").ok
    monkeypatch.setenv("PSYCOPG_WAIT_FUNC", waits)
    for app in (greenlets, threads):
        with app.app_context():
            monkeypatch.setattr(db.engine.dialect, "driver", driver)
    assert not find(greenlets, "driver").ok
    assert find(greenlets, "driver").mend
    assert find(threads, "driver").ok
    assert find(in_development, "driver").ok
    assert "stops all requests" in find(in_development, "driver").detail


def test_limits_that_each_worker_counts_alone_are_told(make_app: MakeApp) -> None:
    limited, free = (make_app(RATELIMIT_ENABLED=switch, WEB_CONCURRENCY="3") for switch in ("1", "0"))
    counters = 3 * int(load_answers()["max_replicas"])
    assert f"{counters} workers count 300 per minute each" in find(limited, "redis").detail
    assert "count" not in find(free, "redis").detail


@pytest.mark.parametrize("name", ["DEBUG", "TESTING"])
def test_debugging_in_production_is_found(make_app: MakeApp, name: str) -> None:
    app = make_app(**PRODUCTION)
    assert find(app, "debug").ok
    app.config[name] = True
    assert name in find(app, "debug").detail


@pytest.mark.parametrize(
    "arguments", ["--timeout 60", "--graceful-timeout 20", "--keep-alive 5", "--graceful-timeout 40"]
)
def test_a_timeout_out_of_order_is_found(app: Flask, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    assert find(app, "ladders").ok
    monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)
    assert not find(app, "ladders").ok


def test_a_schema_behind_this_release_is_found(make_app: MakeApp, app: Flask, tmp_path: Path) -> None:
    assert find(app, "migrations").ok
    assert not find(make_app(DATABASE_URL=f"sqlite:///{tmp_path}/empty.db"), "migrations").ok


def test_two_newest_migrations_are_found(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(app, "migrations").ok
    monkeypatch.setattr(database, "heads", lambda: frozenset({"a1", "b2"}))
    assert "a1, b2" in find(app, "migrations").detail


def test_the_exit_code_and_the_json_tell_the_same(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    well = [Finding("ports", True, "fine")]
    ill = [*well, Finding("memory", False, "too much", "less")]
    for findings, code in ((well, 0), (ill, 1)):
        assert preflight.report(findings, as_json=False) == code
        assert ("FAIL" in capsys.readouterr().out) == bool(code)
        assert preflight.report(findings, as_json=True) == code
        told = json.loads(capsys.readouterr().out)
        assert told["ok"] == (not code)
        assert [check["check"] for check in told["checks"]] == [finding.check for finding in findings]
    with app.app_context():
        assert {finding.check for finding in examine(app)} == set(preflight.CHECKS)
        assert {finding.check for finding in examine(app, ["migrations"])} == set(preflight.CHECKS) - {"migrations"}
