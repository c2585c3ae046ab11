"""Images and containers on a real engine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.docker import Docker, engine
from support.git import git
from support.standins import Images
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
        certificates = os.environ.get("SSL_CERT_FILE")  # a machine whose network has a CA of its own names it so
        secrets = ["--secret", f"id=ca_certificates,src={certificates}"] if certificates else []
        contexts = self.images.contexts(folder / "Dockerfile")
        self.docker.run("build", "--quiet", "--tag", f"{RUN}/{tag}", *secrets, *contexts, *options, folder)
        return f"{RUN}/{tag}"


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
