"""`make up` in a rendered service: the whole of it in containers, from compose.yaml as it is rendered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.conftest import RUN, Builder
from support.docker import Container, Docker
from support.service import Client, free_port, wait_for
from support.standins import PINNED
from support.template import SERVICE, load

GRACE: float = load(SERVICE / "app" / "capacity.py").SECONDS["grace"]


@dataclass
class Stack(Client):
    """The services of compose.yaml, started."""

    docker: Docker
    folder: Path
    environ: Mapping[str, str]
    port: int

    def make(self, *target: str) -> None:
        done = subprocess.run(
            ["make", *target], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def compose(self, *command: str) -> str:
        done = subprocess.run(
            ["docker", "compose", *command],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def container(self, service: str) -> Container:
        (name,) = self.compose("ps", "--all", "--quiet", service).split()
        return Container(self.docker, name)

    def log(self) -> list[dict[str, Any]]:
        return self.container("app").log()


@pytest.fixture(scope="module")
def stack(docker: Docker, builder: Builder, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack after `make up`. What a registry would give is named in a second file, which Compose is told of."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("compose") / "service", symlinks=True)
    shutil.rmtree(copy / "secrets")
    (copy / "standins.json").write_text(json.dumps(standins(builder, copy)))
    port = free_port()
    environ = {
        **docker.environ,
        "APP_VERSION": RUN,
        "COMPOSE_FILE": "compose.yaml:standins.json",
        "COMPOSE_PROJECT_NAME": RUN,
        "HTTP_PORT": str(port),
    }
    stack = Stack(docker, copy, environ, port)
    try:
        stack.make("up")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout=5")


def standins(builder: Builder, folder: Path) -> dict[str, Any]:
    """What Compose is to take instead of the images of registries, and the certificates of this machine."""
    certificates = os.environ.get("SSL_CERT_FILE")
    names = PINNED.findall((folder / "Dockerfile").read_text())
    contexts = {name: f"docker-image://{found}" for name in names if (found := builder.images.find(name)) != name}
    build = {"additional_contexts": contexts, "secrets": ["ca_certificates"] if certificates else []}
    services: dict[str, Any] = {"app": {"build": build}, "migrate": {"build": build}}
    for service, text in (("postgres", "postgres:"), ("redis", "redis:")):
        (name,) = [name for name in PINNED.findall((folder / "compose.yaml").read_text()) if name.startswith(text)]
        services[service] = {"image": builder.images.find(name)}
    secrets = {"ca_certificates": {"file": certificates}} if certificates else {}
    return {"services": services, "secrets": secrets}


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
    assert len(values) == 3
    for service in ("app", "migrate", "postgres", "redis"):
        told = json.dumps(stack.container(service).state)
        assert [value for value in values if value in told] == []


def test_the_stores_reach_nobody_and_nobody_reaches_them(stack: Stack) -> None:
    for service in ("postgres", "redis"):
        state = stack.container(service).state
        assert not any(state["NetworkSettings"]["Ports"].values())
        (network,) = state["NetworkSettings"]["Networks"]
        assert stack.docker.inspect(network)["Internal"]


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
