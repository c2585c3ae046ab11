"""`make up` in a rendered service: the whole of it in containers, from compose.yaml as it is rendered."""

from __future__ import annotations

import json
import os
import signal

from deploy.conftest import Stack
from support.service import wait_for
from support.template import SERVICE, load

GRACE: float = load(SERVICE / "app" / "capacity.py").SECONDS["grace"]


def test_make_up_gives_a_service_that_is_ready(stack: Stack) -> None:
    assert stack.get("/healthz/ready").json["status"] == "ok"
    created = stack.request("POST", "/api/items", {"name": "Bolt", "quantity": 3})
    assert stack.get(created.headers["Location"]).status == 200
    checks = stack.get("/healthz/ready").json["checks"]
    assert {name: check["state"] for name, check in checks.items()} == {
        "database": "up",
        "migrations": "up",
        "redis": "up",
    }


def test_the_migration_ran_once_and_before_the_service(stack: Stack) -> None:
    migrate, app = stack.container("migrate").state["State"], stack.container("app").state["State"]
    assert migrate["ExitCode"] == 0
    assert migrate["FinishedAt"] <= app["StartedAt"]


def test_secrets_come_as_files_alone(stack: Stack) -> None:
    values = [path.read_text() for path in (stack.folder / "secrets").iterdir()]
    assert len(values) == 6
    for service in ("app", "assets", "migrate", "nginx", "pgbouncer", "postgres", "redis"):
        told = json.dumps(stack.container(service).state)
        assert [value for value in values if value in told] == []


def test_the_stores_reach_nobody_and_nobody_reaches_them(stack: Stack) -> None:
    for service in ("pgbouncer", "postgres", "redis"):
        state = stack.container(service).state
        assert not any(state["NetworkSettings"]["Ports"].values())
        (network,) = state["NetworkSettings"]["Networks"]
        assert stack.docker.inspect(network)["Internal"]


def test_the_service_comes_by_the_pooler_and_migrations_go_past_it(stack: Stack) -> None:
    """By preflight's word, and by that of the database."""
    stack.get("/api/items")
    told = json.loads(stack.compose("run", "--rm", "--no-deps", "migrate", "flask", "preflight", "--json"))
    checks = {check["check"]: check["detail"] for check in told["checks"]}
    assert told["ok"], told
    assert checks["pooler"] == "migrations go past it"
    assert "connections to the pooler" in checks["connections"]
    peers = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE datname = 'app' AND client_addr IS NOT NULL"
    query = ["psql", "--username=app", "--dbname=app", "--no-align", "--tuples-only", "--command", peers]
    assert stack.container("postgres").execute(*query) == stack.container("pgbouncer").host


def test_limits_and_patience_are_those_of_the_answers(stack: Stack) -> None:
    state = stack.container("app").state
    answers = json.loads((stack.folder / "app" / "service.json").read_text())
    assert state["HostConfig"]["NanoCpus"] == float(answers["cpus"]) * 1e9
    assert state["HostConfig"]["Memory"] == int(answers["memory_mb"]) * 2**20
    assert state["Config"]["StopTimeout"] == GRACE


def test_a_service_that_is_killed_is_started_again(stack: Stack) -> None:
    """Killed as the kernel does; `docker kill` would count as a stop that somebody wanted."""
    before = stack.container("app").state["State"]["Pid"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: stack.container("app").state["RestartCount"] == 1, "Docker starts it again", 30)
    stack.container("app").wait_for_health("healthy")
    assert stack.get("/healthz/ready").status == 200


def test_what_the_database_holds_outlives_a_make_down(stack: Stack) -> None:
    location = stack.request("POST", "/api/items", {"name": "Nut", "quantity": 1}).headers["Location"]
    stack.make("down")
    stack.make("up")
    assert stack.get(location).json["name"] == "Nut"
