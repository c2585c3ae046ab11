"""`make deploy` and `make rollback` on one host: nobody notices, and what is broken stays out."""

from __future__ import annotations

import fcntl
import http.client
import json
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from deploy.conftest import RUN, Builder, Stack, composed, edited
from support.load import Load
from support.template import Render

pytestmark = pytest.mark.with_all  # it takes four minutes
RELEASE = "deploy/compose/release.py"
FILES = "compose.yaml:deploy/compose/production.yaml:standins.json"
# The first server to start with this is well, every other one ends.
SECOND_ENDS = """
import os
import redis
if "gunicorn" in sys.argv[0] and redis.Redis.from_url(os.environ["REDIS_URL"]).incr("started") > 1:
    raise SystemExit("it is not the first")
from app import create_app
"""
BAD_MIGRATION = '''"""Bad."""
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SELECT 1 / 0")


def downgrade() -> None:
    pass
'''
# Releases that must not get through: a file, what stands there, and what does instead; "" is a new file.
BROKEN = {
    "never-ready": ("app/health.py", '"/ready"', '"/elsewhere"'),
    "ends-at-once": ("wsgi.py", "from app import create_app\n", "raise SystemExit('it ends at once')\n"),
    "second-ends": ("wsgi.py", "from app import create_app\n", SECOND_ENDS),
    "bad-migration": ("migrations/versions/0003_bad.py", "", BAD_MIGRATION),
}


class Visitors(Load):
    """Clients of the edge."""

    stack: Stack

    def _connect(self) -> http.client.HTTPConnection:
        return self.stack.connect(self.patience)


@dataclass
class Writer:
    """A client that makes items, a few a second, and counts what it is answered."""

    stack: Stack
    statuses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(0.25):
            try:
                self.statuses[str(self.stack.request("POST", "/api/items", {"name": "Bolt"}).status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.statuses[repr(error)] += 1

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@dataclass
class Production(Stack):
    """The service on its host, as production.yaml has it."""

    builder: Builder
    name: str

    def build(self, version: str, file: str = "", old: str = "", new: str = "") -> str:
        """The image of a release, in which something may be changed; the name of the version."""
        version = f"{RUN}-{version}"
        source = edited(self.folder, self.folder.with_name(version), file, old, new)
        image = self.builder.build(source, version, f"--build-arg=APP_VERSION={version}")
        self.docker.run("tag", image, f"localhost/{self.name}:{version}")
        return version

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, RELEASE, *arguments, "--patience=20"]
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False, timeout=300
        )

    def done(self, *arguments: str) -> str:
        done = self.release(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()[-1]

    def visitors(self, clients: int = 8, pause: float = 0.0) -> Visitors:
        """Clients that ask until they are told to end."""
        load = Visitors(self.port, total=10**9, clients=clients, pause=pause)
        load.stack = self
        load.start()
        return load

    def complaints(self) -> str:
        """What nginx says of what went wrong."""
        lines = self.container("nginx").output().splitlines()
        return "\n".join([line for line in lines if '"status":50' in line or not line.startswith("{")][-40:])

    def instances(self) -> dict[str, str]:
        """The version of each."""
        names = self.compose("ps", "--all", "--quiet", "app").split()
        return {name: self.docker.inspect(name)["Config"]["Image"].rpartition(":")[2] for name in names}


@pytest.fixture(scope="module")
def production(
    builder: Builder, render: Render, tmp_path_factory: pytest.TempPathFactory, variant: str
) -> Iterator[Production]:
    """After its first `make deploy`."""
    folder = tmp_path_factory.mktemp("production") / "service"
    shutil.copytree(render(worker_class=variant), folder)
    limits = folder / "deploy" / "nginx" / "limits.conf"  # one client asks for all of it here
    limits.write_text(re.sub(r"rate=\d+r/s", "rate=100000r/s", limits.read_text()))
    with composed(builder, folder, f"{RUN}-production") as stack:
        stack.environ = {**stack.environ, "COMPOSE_FILE": FILES}
        name = json.loads((folder / "app" / "service.json").read_text())["slug"]
        production = Production(**vars(stack), builder=builder, name=name)
        production.make("deploy", f"VERSION={production.build('1')}")
        yield production


def test_the_first_release_serves_on_two_instances(production: Production) -> None:
    assert sorted(production.instances().values()) == [f"{RUN}-1"] * 2
    assert production.get("/healthz/ready").json["status"] == "ok"
    ports = production.container("nginx").state["HostConfig"]["PortBindings"]
    assert {one["HostIp"] for bindings in ports.values() for one in bindings} <= {"", "0.0.0.0", "::"}
    refused = production.release("rollback")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "No release came before the one that runs: deploy one, make deploy VERSION=1.2.3\n"


def test_status_says_what_serves_and_on_which_instances(production: Production) -> None:
    first, _, *instances = production.release("status").stdout.splitlines()
    assert first == f"{RUN}-1 serves"
    assert [f"localhost/{production.name}:{RUN}-1" in line and "(healthy)" in line for line in instances] == [True] * 2


def test_nobody_notices_a_release_or_the_way_back(production: Production) -> None:
    second = production.build("2", "app/pages/routes.py", "blueprint = ", "# The second.\nblueprint = ")
    with Writer(production) as writer:
        load = production.visitors()
        try:
            load.wait_for_answers(50)
            while load.outcomes["answered"] < 20_000:
                assert production.done("deploy", second) == f"{second} serves; before it: {RUN}-1"
                assert sorted(production.instances().values()) == [second] * 2
                assert production.done("rollback") == f"{RUN}-1 serves; before it: {second}"
                assert sorted(production.instances().values()) == [f"{RUN}-1"] * 2
        finally:
            load.end()
    assert set(load.outcomes) <= {"answered", "close"}, (load.outcomes, load.losses[:5], production.complaints())
    assert writer.statuses.keys() == {"201"}, writer.statuses


def test_a_release_that_stops_all_before_it_starts_one_would_be_noticed(production: Production) -> None:
    script = production.folder / RELEASE
    whole = script.read_text()
    loop = "        try:\n            for _ in range(self.replicas):\n"
    assert loop in whole
    load = production.visitors()
    script.write_text(whole.replace(loop, f"        while old:\n            self.stop(old.pop())\n{loop}"))
    try:
        load.wait_for_answers(50)
        production.done("deploy", f"{RUN}-1")
    finally:
        script.write_text(whole)
        load.end()
    assert load.outcomes["status 502"] > 0


def test_an_unknown_release_is_told_with_the_mend(production: Production) -> None:
    refused = production.release("deploy", "0.0.0")
    name = f"localhost/{production.name}:0.0.0"
    assert refused.returncode == 1
    assert refused.stderr == (
        f"0.0.0 is not released, {RUN}-1 serves on: {name} is neither here nor in its registry. "
        f"Build it: docker build --tag {name} --build-arg APP_VERSION=0.0.0 .\n"
    )


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_release_leaves_the_old_one_serving(production: Production, defect: str) -> None:
    version = production.build(defect, *BROKEN[defect])
    before = production.instances()
    load = production.visitors(clients=2, pause=0.02)
    try:
        refused = production.release("deploy", version)
    finally:
        load.end()
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"{version} is not released, {RUN}-1 serves on: ")
    after = production.instances()
    assert sorted(after.values()) == sorted(before.values())
    assert len(after.keys() & before.keys()) == (1 if defect == "second-ends" else 2)
    assert set(load.outcomes) <= {"answered", "close"}, (load.outcomes, load.losses[:5])
    assert json.loads((production.folder / "deploy/compose/release.json").read_text())["current"] == f"{RUN}-1"


def test_one_release_at_a_time(production: Production) -> None:
    with (production.folder / "deploy/compose/release.json").open("a") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        refused = production.release("rollback")
    assert refused.returncode == 1
    assert refused.stderr == "Another release is under way on this host; try again when it is done.\n"
