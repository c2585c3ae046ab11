"""A real Docker engine: the machine's, or else Debian 13's, unpacked and started for the run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.packages import find, unpack
from support.service import Client, wait_for
from support.template import ROOT

HOME = ROOT / "build" / "docker"
# Debian 12's own engine (20.10) knows neither heredocs nor named contexts.
ENGINE = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd")
MEND = (
    "no Docker engine answers, and one can be started here only by root on Debian. Install and start Docker "
    "(https://docs.docker.com/engine/install/), or: sudo make test"
)


@dataclass
class Docker:
    """An engine that answers.

    Attributes:
        environ: in which `docker` finds it, its own programs and plugins.
    """

    environ: Mapping[str, str]

    def run(self, *arguments: str | Path, **options: Any) -> str:
        """What a `docker` command prints; one that fails fails the test with all it said."""
        done = self.ask(*arguments, **options)
        assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def ask(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same, however it ends."""
        command = ["docker", *map(str, arguments)]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False, **options)

    def inspect(self, name: str) -> Any:
        """All that is known of a container or an image."""
        return json.loads(self.run("inspect", name))[0]

    @contextlib.contextmanager
    def container(self, image: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[Container]:
        """A container that runs meanwhile, with the options of `docker run`."""
        name = self.run("run", "--detach", *options, image, *command)
        try:
            yield Container(self, name)
        finally:
            self.run("rm", "--force", "--volumes", name)


@dataclass
class Container(Client):
    """A container that was started; a service in one is spoken to as any other, at its own address."""

    docker: Docker
    name: str
    port: int = 8000

    def __post_init__(self) -> None:
        networks = self.state["NetworkSettings"]["Networks"].values()
        self.host = next((network["IPAddress"] for network in networks if network["IPAddress"]), "")

    @property
    def state(self) -> Any:
        return self.docker.inspect(self.name)

    @property
    def health(self) -> str:
        """starting, healthy or unhealthy."""
        health: str = self.state["State"]["Health"]["Status"]
        return health

    def output(self) -> str:
        """All that it wrote, to standard output and error."""
        done = self.docker.ask("logs", self.name)
        return done.stdout + done.stderr

    def log(self) -> list[dict[str, Any]]:
        """Every line it wrote; one that is not JSON fails the test."""
        return [json.loads(line) for line in self.output().splitlines()]

    def execute(self, *command: str) -> str:
        """What a command prints that runs beside the service."""
        return self.docker.run("exec", self.name, *command)

    def wait_until(self, *command: str) -> None:
        """Until a command beside the service ends well."""
        wait_for(lambda: self.docker.ask("exec", self.name, *command).returncode == 0, " ".join(command), 60)

    def wait_for_health(self, health: str, seconds: float = 60) -> None:
        wait_for(lambda: self.health == health, f"it is {health}", seconds)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.docker.run("stop", "--time", "45", self.name)
        code: int = self.state["State"]["ExitCode"]
        return code


@contextlib.contextmanager
def engine() -> Iterator[Docker]:
    """An engine for one run of tests; a second run waits until the first has ended."""
    machines_own = Docker(os.environ)
    if shutil.which("docker") and all(
        machines_own.ask(*command).returncode == 0
        for command in (["info"], ["buildx", "version"], ["compose", "version"])
    ):
        yield machines_own
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.fail(MEND, pytrace=False)
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with serve(unpack(*ENGINE, into=HOME)) as docker:
            yield docker


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Docker]:
    """The engine in `folder`, started; images and build cache stay for the next run, containers do not."""
    programs = [folder / "root/usr/sbin", folder / "root/usr/bin", find("runc", "runc").parent]
    programs.append(find("iptables", "iptables").parent)
    state = Path(tempfile.mkdtemp(prefix="docker-", dir="/tmp"))  # short: a socket's path has 107 characters
    socket = f"unix://{state / 'socket'}"
    docker = Docker(
        {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, programs), os.environ.get("PATH", os.defpath)]),
            "DOCKER_CONFIG": str(state / "config"),
            "DOCKER_HOST": socket,
        }
    )
    (state / "daemon.json").write_text("{}")  # not the machine's
    (state / "config").mkdir()
    (state / "config" / "cli-plugins").symlink_to(folder / "root/usr/libexec/docker/cli-plugins")
    command = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "dockerd",
        "--config-file",
        str(state / "daemon.json"),
        "--host",
        socket,
    ]
    command += ["--data-root", str(HOME / "data"), "--exec-root", str(state / "exec"), "--pidfile", str(HOME / "pid")]
    wait_for(no_engine_left, "the engine of a killed run has ended", 60)
    with (HOME / "log").open("wb") as log:
        process = subprocess.Popen(command, env=docker.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(docker, process), "the Docker engine answers", 60)
        remove_leftovers(docker)
        yield docker
        remove_leftovers(docker)
    finally:
        process.terminate()
        process.wait(60)
        if os.path.ismount(HOME / "data"):  # the engine mounts it upon itself, and nobody could remove it so
            subprocess.run(["umount", str(HOME / "data")], check=False)
        shutil.rmtree(state, ignore_errors=True)


def no_engine_left() -> bool:
    """Whether the data is nobody's. A killed run takes its engine with it, which takes a moment."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((HOME / "pid").read_text()), 0)
        return False
    return True


def answers(docker: Docker, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"dockerd ended:\n{(HOME / 'log').read_text()[-3000:]}"
    return docker.ask("version").returncode == 0


def remove_leftovers(docker: Docker) -> None:
    if containers := docker.run("ps", "--all", "--quiet").split():
        docker.run("rm", "--force", "--volumes", *containers)
    for kind in (["network"], ["volume", "--all"], ["image"]):
        docker.run(kind[0], "prune", "--force", *kind[1:])
