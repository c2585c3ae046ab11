"""Images and containers on a real engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.docker import Docker, engine
from support.standins import Images
from support.template import ROOT, Render

VARIANTS: list[str] = json.loads((ROOT / "cookiecutter.json").read_text())["worker_class"]


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


@pytest.fixture(scope="session")
def images(docker: Docker) -> Images:
    """The images that others publish."""
    return Images(docker)


@dataclass
class Builder:
    """Builds images of services as a team does: `docker build` in their folder, the Dockerfile as it was rendered."""

    docker: Docker
    images: Images

    def build(self, folder: Path, tag: str, *options: str) -> str:
        """The id of the image of a service."""
        given = ["--quiet", "--tag", tag, *trust(), *self.images.contexts(folder / "Dockerfile"), *options]
        return self.docker.run("build", *given, folder)


def trust() -> list[str]:
    """The certificates of this machine, as the Dockerfile wants those of a network with a CA of its own."""
    bundle = os.environ.get("SSL_CERT_FILE")
    return ["--secret", f"id=ca_certificates,src={bundle}"] if bundle else []


@pytest.fixture(scope="session")
def builder(docker: Docker, images: Images) -> Builder:
    return Builder(docker, images)


@pytest.fixture(scope="session")
def folder(variant: str, render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variant's service as a team has it: in git, used before, with secrets about."""
    folder = tmp_path_factory.mktemp(variant) / "service"
    shutil.copytree(render(worker_class=variant), folder)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "New service"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def image(folder: Path, variant: str, builder: Builder) -> str:
    """The name of the variant's image."""
    tag = f"trial/{variant}"
    builder.build(folder, tag)
    return tag
