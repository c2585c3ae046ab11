"""A service in a cluster, with what is around it."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.conftest import Builder, edited
from support.cluster import Cluster, cluster
from support.docker import Docker, engine
from support.load import Load
from support.service import SECRET_KEY, wait_for
from support.standins import PINNED, Images
from support.template import Render

HERE = Path(__file__).parent
# Three of them, PgBouncer twice, a Job and one more while it rolls: that fits on a machine of two CPUs.
ANSWERS = {"platform": "kubernetes", "cpus": "0.2", "memory_mb": "256", "max_replicas": "5"}
SLUG = "my-service"
# From where it is asked: as the ingress controller, as Prometheus, and as anybody.
CLIENTS = ("ingress", "monitoring", "elsewhere")
CLIENT = """
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: client, image: "{image}", command: [sleep, infinity]}}]
"""
# A command in a pod goes on when whoever gave it has gone; this one ends.
UNTIL_LET_GO = """
import os, sys, threading
threading.Thread(target=lambda: os._exit(len(sys.stdin.read())), daemon=True).start()
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
# Its threads go on if it fails, so it is ended hard.
LOAD = """
import json, os, sys, traceback
told = json.loads(sys.argv[1])
wanted = told.pop("wanted")
load = Load(port=80, total=10**9, **told).start()
try:
    load.wait_for_answers(50, 120)
    print("under way", flush=True)
    sys.stdin.readline()
    load.wait_for_answers(wanted, 600)
    load.end()
    print(json.dumps([load.outcomes, load.losses[:5]]), flush=True)
except BaseException:
    traceback.print_exc()
    os._exit(1)
"""


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with engine() as docker:
        yield docker


@pytest.fixture(scope="session")
def builder(docker: Docker) -> Builder:
    return Builder(docker, Images(docker))


@pytest.fixture(scope="session")
def kubernetes(builder: Builder) -> Iterator[Cluster]:
    """The cluster, with a database in it and somebody who asks in each namespace of `CLIENTS`."""
    with cluster() as found:
        load = found.load
        postgres = load(builder.docker, builder.images.find("postgres:17-trixie"), "localhost/postgres")
        python = load(builder.docker, builder.images.find("python:3.13-slim-trixie"), "localhost/python")
        around = (HERE / "surroundings.yaml").read_text().replace("POSTGRES\n", f"{postgres}\n")
        clients = [CLIENT.format(namespace=name, image=python) for name in CLIENTS]
        try:
            found.kubectl("apply", "--server-side", "--filename=-", input="---".join([around, *clients]))
            found.kubectl("wait", "--namespace=data", "--for=condition=Ready", "pod/postgres", "--timeout=120s")
            for name in CLIENTS:
                found.kubectl("wait", f"--namespace={name}", "--for=condition=Ready", "pod/client", "--timeout=120s")
            yield found
        finally:
            found.ask("delete", "namespace", "data", *CLIENTS, "--ignore-not-found", "--wait=false")


@dataclass
class Team:
    """A service's repository, and whoever rolls it out from there.

    Attributes:
        folder: the repository.
    """

    cluster: Cluster
    builder: Builder
    folder: Path
    overlay: str = "production"

    @property
    def namespace(self) -> str:
        return f"{SLUG}-{self.overlay}"

    def kubectl(self, *arguments: str, **options: Any) -> str:
        return self.cluster.kubectl(f"--namespace={self.namespace}", *arguments, **options)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def build(self, version: str, file: str = "", old: str = "", new: str = "") -> str:
        """The image of a release, in which something may be changed, by its digest; the nodes have it."""
        source = edited(self.folder, self.folder.with_name(f"{self.folder.name}-{version}"), file, old, new)
        image = self.builder.build(source, f"kubernetes-{version}", f"--build-arg=APP_VERSION={version}")
        return self.cluster.load(self.builder.docker, image, f"localhost/{SLUG}")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that somebody gives in the repository, however it ends."""
        environ = {**self.cluster.environ, "PYTHON": sys.executable}
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)

    def release(self, action: str, image: str = "", *options: str) -> subprocess.CompletedProcess[str]:
        """`make deploy`, `make rollback` or `make status`, however it ends."""
        told = " ".join([f"--overlay={self.overlay}", *options])
        return self.run("make", action, f"VERSION={image}", f"ARGS={told}")

    def done(self, action: str, image: str = "", *options: str) -> str:
        """What it printed; one that fails fails the test."""
        done = self.release(action, image, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def follow(self, command: str, **names: str) -> str:
        """What a command of the service's docs prints, with these for the names in capitals."""
        for name, value in names.items():
            command = re.sub(rf"\b{name}\b", value, command)
        words = [word for word in shlex.split(command) if word != "-it"]  # there is no terminal
        if words[0] == "kubectl":
            return self.kubectl(*words[1:])
        assert words[0] == "python3"
        done = self.run(sys.executable, *words[1:])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pods(self, component: str = "web") -> list[Any]:
        """The pods of a part of the service that were not told to end."""
        selector = f"--selector=app.kubernetes.io/name={SLUG},app.kubernetes.io/component={component}"
        pods = self.get("pods", selector)["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, component: str = "web") -> set[str]:
        """The names of those that get requests."""
        return {
            pod["metadata"]["name"]
            for pod in self.pods(component)
            if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
        }

    def endpoints(self) -> set[str]:
        """The names of those that the Service leads to."""
        slices = self.get("endpointslices", f"--selector=kubernetes.io/service-name={SLUG}")["items"]
        ends = [end for one in slices for end in one["endpoints"] or ()]
        return {end["targetRef"]["name"] for end in ends if end["conditions"]["ready"]}

    def restarts(self, name: str) -> int:
        return int(self.get("pod", name)["status"]["containerStatuses"][0]["restartCount"])

    def images(self) -> set[str]:
        """What the pods are of."""
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods()}

    def ask(self, namespace: str, host: str, port: int, timeout: float = 10) -> bool:
        """Whether somebody in that namespace gets a connection."""
        command = ["exec", f"--namespace={namespace}", "client", "--", "python3", "-c", CONNECT, host, str(port)]
        return self.cluster.ask(*command, timeout=timeout).returncode == 0

    def wait_until_asked(self, namespace: str, host: str, port: int, reached: bool) -> None:
        wait_for(lambda: self.ask(namespace, host, port) is reached, f"{host}:{port} from {namespace}: {reached}", 60)

    @contextlib.contextmanager
    def started(self, pod: str, program: str) -> Iterator[None]:
        """A Python program that runs beside the service meanwhile; it has written its first line."""
        command = ["kubectl", "exec", "--stdin", f"--namespace={self.namespace}", pod, "--container=app", "--"]
        with subprocess.Popen(
            [*command, "python3", "-c", UNTIL_LET_GO + program],
            env=self.cluster.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline()
            try:
                yield
            finally:
                process.stdin.close()
                process.wait(30)

    @contextlib.contextmanager
    def visitors(self, wanted: int, clients: int = 8, pause: float = 0.05) -> Iterator[Visitors]:
        """Clients of the Service who ask meanwhile, and on until `wanted` of them were answered."""
        source = Path(sys.modules[Load.__module__].__file__ or "").read_text() + LOAD
        told = {"host": f"{SLUG}.{self.namespace}", "wanted": wanted, "clients": clients, "pause": pause}
        command = ["kubectl", "exec", "--stdin", "--namespace=ingress", "client", "--"]
        command += ["python3", "-c", source, json.dumps(told)]
        with subprocess.Popen(
            command, env=self.cluster.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            visitors = Visitors(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "under way\n"
            try:
                yield visitors
            finally:
                visitors.end()


class Visitors:
    """Clients in the cluster.

    Attributes:
        outcomes: as `Load` counts them, and losses: what the first ones lost; known when they have ended.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.outcomes: dict[str, int] = {}
        self.losses: list[str] = []

    def end(self) -> None:
        said, _ = self.process.communicate("end\n", timeout=700)
        self.outcomes, self.losses = json.loads(said)


@pytest.fixture(scope="session")
def folder(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of a service whose database is another namespace's."""
    folder = tmp_path_factory.mktemp("kubernetes") / "service"
    shutil.copytree(render(**ANSWERS), folder)
    for overlay in ("staging", "production"):
        (folder / "deploy/kubernetes/overlays" / overlay / "database.ini").write_text(
            "[databases]\n* = host=postgres.data port=5432\n"
        )
    return folder


@pytest.fixture(scope="session")
def tasks(folder: Path) -> dict[str, list[str]]:
    """The commands of each row of the table of day two, by what the row is about."""
    text = (folder / "docs/kubernetes.md").read_text().partition("## Day two")[2]
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", text, re.M)
    return {task: [part for part in re.findall(r"`([^`]+)`", cell) if " " in part] for task, cell in rows}


def make_secret(cluster: Cluster, namespace: str, database: str = "app") -> None:
    """The Secret that the service's docs ask for."""
    password = "app:canary-of-postgres"
    values = {
        "secret_key": SECRET_KEY,
        "database_url": f"postgresql://{password}@{SLUG}-pgbouncer:6432/{database}",
        "migration_url": f"postgresql://{password}@postgres.data:5432/{database}",
        "pgbouncer_users": '"app" "canary-of-postgres"',
    }
    literals = [f"--from-literal={name}={value}" for name, value in values.items()]
    made = cluster.kubectl(
        f"--namespace={namespace}", "create", "secret", "generic", SLUG, *literals, "--dry-run=client", "--output=yaml"
    )
    cluster.kubectl("apply", "--server-side", f"--namespace={namespace}", "--filename=-", input=made)


@pytest.fixture(scope="session")
def team(kubernetes: Cluster, builder: Builder, folder: Path) -> Iterator[Team]:
    """After the first `make deploy` to production."""
    team = Team(kubernetes, builder, folder)
    for image in PINNED.findall((folder / "deploy/kubernetes/base/pgbouncer.yaml").read_text()):
        if (found := builder.images.find(image)) != image:
            kubernetes.load(builder.docker, found, f"docker.io/{image.partition(':')[0]}@{image.partition('@')[2]}")
    kubernetes.kubectl("create", "namespace", team.namespace)
    make_secret(kubernetes, team.namespace)
    try:
        print(team.done("deploy", team.build("1")))
        yield team
    finally:
        kubernetes.ask("delete", "namespace", team.namespace, "--wait=false")
