"""Images and containers on a real engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.docker import Container, Docker, engine
from support.git import git
from support.service import Client, free_port
from support.standins import PINNED, Images
from support.template import ROOT, Render

VARIANTS: list[str] = json.loads((ROOT / "cookiecutter.json").read_text())["worker_class"]

# In the names of all that a run makes, so that two runs may share an engine.
RUN = f"trial-{os.getpid()}"
EPOCH = 1_750_000_000  # the time of a commit, as whoever builds says


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The default worker class; each of them with `--all`."""
    if "variant" in metafunc.fixturenames:
        variants = VARIANTS if metafunc.config.getoption("--all") else VARIANTS[:1]
        metafunc.parametrize("variant", variants, scope="session")


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """The engine."""
    with engine() as docker:
        yield docker


@dataclass
class Builder:
    """Builds images as a team does, `docker build` in a service's folder, from the Dockerfile as it was rendered."""

    docker: Docker
    images: Images

    def build(self, folder: Path, tag: str, *options: str) -> str:
        """The name of the image."""
        self.docker.run("build", "--quiet", *self.options(folder, tag), *options, folder)
        return f"{RUN}/{tag}"

    def steps(self, folder: Path, tag: str, *options: str) -> dict[str, float]:
        """What BuildKit did that it had not in its cache, and for how many seconds by its own clock."""
        command = ["docker", "build", "--progress=plain", *self.options(folder, tag), *options, str(folder)]
        done = subprocess.run(command, env=self.docker.environ, capture_output=True, text=True, check=True)
        names = dict(re.findall(r"^(#\d+) (\[(?!internal|context).*)$", done.stderr, re.M))
        seconds = dict(re.findall(r"^(#\d+) DONE ([\d.]+)s$", done.stderr, re.M))
        return {name: float(seconds[number]) for number, name in names.items() if number in seconds}

    def options(self, folder: Path, tag: str) -> list[str]:
        certificates = os.environ.get("SSL_CERT_FILE")  # a machine whose network has a CA of its own names it so
        secrets = ["--secret", f"id=ca_certificates,src={certificates}"] if certificates else []
        return ["--tag", f"{RUN}/{tag}", *secrets, *self.images.contexts(folder / "Dockerfile")]


def edited(folder: Path, to: Path, file: str = "", old: str = "", new: str = "") -> Path:
    """A copy of a service, anew, in which something may be changed: `new` for `old`, or for all of the file."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to, symlinks=True)
    if file:
        path = to / file
        text = path.read_text() if old else ""
        assert old in text
        path.write_text(text.replace(old, new) if old else new)
    return to


@pytest.fixture(scope="session")
def builder(docker: Docker) -> Builder:
    return Builder(docker, Images(docker))


@pytest.fixture(scope="session")
def folder(variant: str, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variant's service as a team has it: in git, with what nobody else should see lying about."""
    folder = tmp_path_factory.mktemp(variant) / "service"
    shutil.copytree(render(worker_class=variant), folder)
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "New service"]):
        git(folder, *command)
    (folder / "secrets").mkdir()
    for path in ("secrets/key", "app/.env.production", "notes.txt"):
        (folder / path).write_text("canary-of-files")
    return folder


@pytest.fixture(scope="session")
def image(folder: Path, variant: str, builder: Builder) -> str:
    """The variant's image."""
    return builder.build(
        folder, variant, "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "--build-arg", "APP_VERSION=1.2.3"
    )


@pytest.fixture(scope="session")
def network(docker: Docker) -> Iterator[str]:
    """A network of this run's own, on which containers find each other by name."""
    docker.run("network", "create", RUN)
    yield RUN
    docker.run("network", "rm", RUN)


@pytest.fixture(scope="session")
def database_url(docker: Docker, builder: Builder, network: str, image: str) -> Iterator[str]:
    """The URL of a PostgreSQL on that network, migrated by the image itself."""
    settings = ["POSTGRES_PASSWORD=canary-of-postgres", "POSTGRES_USER=app", "POSTGRES_DB=app"]
    options = [f"--env={setting}" for setting in settings]
    url = "postgresql://app:canary-of-postgres@db:5432/app"
    server = builder.images.find("postgres:17-trixie")
    with docker.container(server, f"--network={network}", "--network-alias=db", *options) as running:
        running.wait_until("pg_isready", "--host=db", "--username=app")
        docker.run("run", "--rm", f"--network={network}", *production(url), image, "flask", "db", "upgrade")
        yield url


def production(database_url: str) -> list[str]:
    """Options of `docker run` that give a service what it must have in production."""
    return [f"--env=DATABASE_URL={database_url}", "--env=SECRET_KEY=Zk3vQ9xWm2Lr8TtYb5NcJh7PfDs4Ga6E"]


@dataclass
class Stack(Client):
    """The services of compose.yaml, started; spoken to over TLS, as the world does.

    Attributes:
        port: that of the host which leads to nginx's TLS.
        http_port: and the one without.
    """

    docker: Docker
    folder: Path
    environ: Mapping[str, str]
    port: int
    http_port: int

    def connect(self, timeout: float = 20) -> http.client.HTTPSConnection:
        # Its certificate is its own, so nobody vouches for it.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=context)
        connection.connect()
        return connection

    def make(self, *target: str) -> None:
        self.run("make", *target)

    def compose(self, *command: str) -> str:
        return self.run("docker", "compose", *command)

    def run(self, *command: str) -> str:
        """What a command prints in the service's folder; one that fails fails the test with all it said."""
        done = subprocess.run(command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def container(self, service: str) -> Container:
        (name,) = self.compose("ps", "--all", "--quiet", service).split()
        return Container(self.docker, name)

    def log(self) -> list[dict[str, Any]]:
        return self.container("app").log()


@contextlib.contextmanager
def composed(builder: Builder, folder: Path, name: str) -> Iterator[Stack]:
    """The service in `folder`, of which nothing runs yet, as a Compose project of that name.

    What a registry would give is named in a second file, which Compose is told of.
    """
    (folder / "standins.json").write_text(json.dumps(standins(builder, folder)))
    port, http_port = free_port(), free_port()
    environ = {
        **builder.docker.environ,
        "APP_VERSION": RUN,
        "COMPOSE_FILE": "compose.yaml:standins.json",
        "COMPOSE_PROJECT_NAME": name,
        "HTTP_PORT": str(http_port),
        "HTTPS_PORT": str(port),
    }
    stack = Stack(builder.docker, folder, environ, port, http_port)
    try:
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout=5", "--remove-orphans")


@pytest.fixture(scope="session")
def stack(builder: Builder, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack after `make up`."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("compose") / "service", symlinks=True)
    shutil.rmtree(copy / "secrets")
    with composed(builder, copy, RUN) as stack:
        stack.make("up")
        yield stack


def standins(builder: Builder, folder: Path, *profiles: str) -> dict[str, Any]:
    """What Compose is to take instead of the images of registries, and the certificates of this machine.

    Services of other profiles are left as they are: what nobody starts needs no image.
    """
    certificates = os.environ.get("SSL_CERT_FILE")
    told = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    taken = {
        service: one["image"]
        for service, one in told.items()
        if {*one.get("profiles", ())} <= {*profiles} and PINNED.fullmatch(f"image: {one.get('image')}")
    }
    bases = {*PINNED.findall((folder / "Dockerfile").read_text())}
    images = builder.images.find_all(bases | {*taken.values()})
    contexts = {name: f"docker-image://{images[name]}" for name in bases if images[name] != name}
    build = {"additional_contexts": contexts, "secrets": ["ca_certificates"] if certificates else []}
    services: dict[str, Any] = {service: {"build": build} for service, one in told.items() if "build" in one}
    services |= {service: {"image": images[image]} for service, image in taken.items()}
    secrets = {"ca_certificates": {"file": certificates}} if certificates else {}
    return {"services": services, "secrets": secrets}
