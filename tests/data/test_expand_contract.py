"""The worked example of the service's docs/migrations.md, release by release, on a service that is under load.

Code, migrations and commands are taken from that page and applied to copies of the service, so the page cannot lie.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.postgres import Postgres
from support.service import Service, wait_for

pytestmark = pytest.mark.default_class
FENCE = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', re.M | re.S)
# What `flask db revision` writes above the functions of a migration.
HEAD = '''"""{name}"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{after}"

'''
ONE_STEP = """def upgrade() -> None:
    op.alter_column("items", "name", new_column_name="title")

def downgrade() -> None:
    op.alter_column("items", "title", new_column_name="name")
"""
CLIENTS = 3


@dataclass
class Clients:
    """Some who write and read at the same time, each request at whatever instance comes next; one more asks for
    readiness.

    Attributes:
        instances: that serve; a rollout changes the list.
        rounds: how many each of them has begun.
        errors: what went wrong, whatever it was.
    """

    instances: list[Service]
    rounds: list[int] = field(default_factory=lambda: [0] * (CLIENTS + 1))
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS + 1)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, rounds: int = 3) -> None:
        """Until each of them has begun so many more rounds: with one more, it is done with the round before."""
        before = list(self.rounds)
        wait_for(lambda: all(now >= old + rounds for now, old in zip(self.rounds, before, strict=True)), "rounds", 60)

    def serve_at(self, *instances: Service) -> None:
        """From now on these serve, and nobody is on the way to another one."""
        self.instances = list(instances)
        self.wait()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            self.rounds[number] += 1
            instances = self.instances
            at = [instances[(self.rounds[number] + step) % len(instances)] for step in range(4)]
            try:
                if number < CLIENTS:
                    self._write(f"{number}-{self.rounds[number]}", at)
                else:
                    self._probe(instances)
                self._stop.wait(0.05)
            except (OSError, KeyError, ValueError, AssertionError) as error:
                self.errors.append(repr(error))

    @staticmethod
    def _write(name: str, at: list[Service]) -> None:
        """What one instance wrote, another one reads."""
        created = at[0].request("POST", "/api/items", {"name": f"new {name}"})
        assert created.status == 201, created.body
        path = created.headers["Location"]
        assert at[1].get(path).json["name"] == f"new {name}"
        changed = at[2].request("PATCH", path, {"name": f"other {name}"})
        assert changed.status == 200, changed.body
        assert at[3].get(path).json["name"] == f"other {name}"
        page = at[0].get("/api/items?limit=50")
        assert page.status == 200, page.body
        assert all(item["name"] for item in page.json["items"])

    def _probe(self, instances: list[Service]) -> None:
        """As orchestrators do, which take nobody out for one answer: Kubernetes waits for three."""
        for service in instances:
            answers = (service.get("/healthz/ready") for _ in range(3))
            assert any(answer.status == 200 for answer in answers), "it is not ready, three times"


@dataclass
class Release:
    """A release of the service, in a folder of its own."""

    folder: Path
    venv: Path
    url: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        service = Service(self.folder, self.venv, self.folder.parent, {"DATABASE_URL": self.url})
        environ = {**service.all_environ, "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)

    def do(self, *command: str) -> None:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def serving(self) -> Iterator[Service]:
        state = self.folder.with_name(f"{self.folder.name}-state")
        state.mkdir()
        with Service(self.folder, self.venv, state, {"DATABASE_URL": self.url, "WEB_CONCURRENCY": "1"}) as service:
            yield service

    def newest(self) -> str:
        """Its newest migration, by the number that every file name begins with."""
        return max(path.name.partition("_")[0] for path in (self.folder / "migrations" / "versions").glob("*.py"))

    def follow(self, name: str, blocks: list[tuple[str, str, str]]) -> Release:
        """The next release: a copy, with what stands in the page's blocks."""
        release = Release(Path(shutil.copytree(self.folder, self.folder.with_name(name))), self.venv, self.url)
        for language, title, text in blocks:
            path = release.folder / title
            if language == "diff":
                old = "".join(line[1:] or "\n" for line in text.splitlines(True) if line[0] in " -\n")
                new = "".join(line[1:] or "\n" for line in text.splitlines(True) if line[0] in " +\n")
                source = path.read_text()
                assert source.count(old) == 1, f"{title} has not once: {old}"
                path.write_text(source.replace(old, new))
            elif title.startswith("migrations/"):
                revision = path.name.partition("_")[0]
                path.write_text(HEAD.format(name=path.stem, revision=revision, after=release.newest()) + text)
            elif title:
                path.write_text(text)
            elif text.startswith("rm "):
                (release.folder / text.split()[1]).unlink()
        release.do("ruff", "check", "--no-cache", "--quiet", "--fix", "app/items", "migrations")
        release.do("ruff", "format", "--no-cache", "--quiet", "app/items", "migrations")
        return release


@pytest.fixture
def first(folder: Path, venv: Path, migrated: str, tmp_path: Path) -> Release:
    return Release(Path(shutil.copytree(folder, tmp_path / "release-0")), venv, migrated)


@pytest.fixture
def releases(first: Release) -> list[tuple[Release, list[str]]]:
    """Each release of the example, and what is to be run when the one before it is gone."""
    page = (first.folder / "docs" / "migrations.md").read_text()
    made: list[tuple[Release, list[str]]] = []
    for number, section in enumerate(re.split(r"^### Release \d ", page, flags=re.M)[1:], 1):
        blocks = [(match[1], match[2] or "", match[3]) for match in FENCE.finditer(section)]
        before = made[-1][0] if made else first
        commands = [text.strip() for language, _, text in blocks if language == "sh" and text.startswith("flask ")]
        made.append((before.follow(f"release-{number}", blocks), commands))
    return made


def test_the_example_of_the_page_is_noticed_by_nobody(
    first: Release, releases: list[tuple[Release, list[str]]], postgres_server: Postgres
) -> None:
    assert len(releases) == 4
    with contextlib.ExitStack() as running:
        old = running.enter_context(first.serving())
        with Clients([old]) as clients:
            for release, commands in releases:
                clients.wait()
                release.do("flask", "db", "upgrade")  # the old release meets the new schema
                clients.wait()
                new = running.enter_context(release.serving())
                clients.serve_at(old, new)
                clients.serve_at(new)
                assert old.stop() == 0
                for command in commands:
                    release.do(*command.split())
                old = new
            clients.wait()
    assert clients.errors == []
    assert commands == []
    columns = "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = 'items'"
    assert ["title", "NO"] in postgres_server.sql(columns, first.url)
    assert "name" not in [name for name, _ in postgres_server.sql(columns, first.url)]


@pytest.mark.with_all
def test_each_release_of_the_page_is_whole(releases: list[tuple[Release, list[str]]]) -> None:
    """Its models and its migrations agree; SQLite goes up and down with them all, and the linter passes them."""
    test = "tests/test_migrations.py::test_"
    for release, _ in releases:
        release.do("python", "-m", "pytest", "-p", "no:cacheprovider", f"{test}models_and_migrations_agree")
    release.do("python", "-m", "pytest", "-p", "no:cacheprovider", f"{test}migrations_run_down_and_up_again")
    release.do("python", "scripts/lint_migrations.py")


@pytest.mark.with_all
def test_a_rename_in_one_step_is_noticed_and_refused(first: Release) -> None:
    """What the example is for, and that the clients above would tell."""
    second = first.follow("release-1", [("python", "migrations/versions/1001_one_step.py", ONE_STEP)])
    refused = second.run("python", "scripts/lint_migrations.py")
    assert refused.returncode == 1
    assert "migrations/versions/1001_one_step.py:10: Renaming a column" in refused.stdout
    with first.serving() as old, Clients([old]) as clients:
        clients.wait()
        assert clients.errors == []
        second.do("flask", "db", "upgrade")
        clients.wait()
    assert clients.errors
