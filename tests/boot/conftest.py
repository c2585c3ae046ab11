"""Running services. A new server, worker class or platform joins `VARIANTS` and is held to every promise."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.postgres import Postgres, postgres
from support.redis import Redis, redis
from support.service import Service
from support.template import ROOT, Render
from support.trial import Trial

Start = Callable[..., Service]
Changed = Callable[..., Service]
Send = Callable[..., list[socket.socket]]
VARIANTS = json.loads((ROOT / "cookiecutter.json").read_text())["worker_class"]
# For what a worker that takes one request at a time cannot show.
THREADED = pytest.mark.parametrize(
    "variant", [name for name in VARIANTS if name != "sync"], indirect=True, scope="session"
)
# CI has no time for every class: of those but the default it asks what names them (tests/boot/test_gevent.py), and what
# is marked `every_class`; the rest asks `--all`.


@pytest.hookimpl(tryfirst=True)  # tests/conftest.py leaves out what is marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have `--all` alone ask what the default class answers for; all of it takes longer than CI may."""
    for item in items:
        if is_left_out(item):
            item.add_marker(pytest.mark.with_all)


def is_left_out(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    variant = callspec.params.get("variant", VARIANTS[0]) if callspec else VARIANTS[0]
    named = any("variant" in str(mark.args[0]) for mark in item.iter_markers("parametrize"))
    asked = named or item.get_closest_marker("every_class") is not None
    return variant != VARIANTS[0] and (not asked or item.get_closest_marker("default_class") is not None)


@pytest.fixture(scope="session", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def folder(variant: str, render: Render, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variant's service with a feature for trials added, and beside it a database that was migrated."""
    folder = tmp_path_factory.mktemp(variant) / "service"
    shutil.copytree(render(worker_class=variant), folder, ignore=shutil.ignore_patterns(".env"))
    (folder / "app" / "trial").mkdir()
    routes = Path(__file__).parents[1] / "support" / "trial_routes.py"
    shutil.copy(routes, folder / "app" / "trial" / "routes.py")
    Service(folder, venv, folder.parent).flask("db", "upgrade")
    return folder


@pytest.fixture
def start(folder: Path, venv: Path, tmp_path: Path) -> Iterator[Start]:
    """`start(LOG_LEVEL="DEBUG")` is a service of the test's own, with a migrated database."""
    with ExitStack() as running:

        def start(**environ: str | None) -> Service:
            return running.enter_context(prepare(folder, venv, tmp_path, environ))

        yield start


@pytest.fixture
def changed(folder: Path, venv: Path, tmp_path: Path) -> Iterator[Changed]:
    """`changed(edits, DATABASE_URL=url)` is a running copy of the service with these edits, by file; "" is a new one."""
    with ExitStack() as running:

        def start(edits: Mapping[str, list[tuple[str, str]]], **environ: str) -> Service:
            home = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
            shutil.copytree(folder, home / "service")
            shutil.copy(folder.parent / "app.db", home)
            for file, changes in edits.items():
                path = home / "service" / file
                path.parent.mkdir(exist_ok=True)
                source = path.read_text() if path.exists() else ""
                for old, new in changes:
                    assert source.count(old) == 1, f"{file} no longer has one {old!r}: put the fault in elsewhere"
                    source = source.replace(old, new)
                path.write_text(source)
            return running.enter_context(prepare(home / "service", venv, home, environ))

        yield start


@pytest.fixture(scope="session")
def service(folder: Path, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that tests share: they leave it running, and what they count they count as a difference."""
    with prepare(folder, venv, tmp_path_factory.mktemp("shared"), {}) as service:
        yield service


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL for the run. Whoever freezes or restarts a server, or sets it up otherwise, starts one."""
    with postgres(max_connections="200") as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> str:
    """The URL of a new, empty database of the test's own."""
    return postgres_server.create()


@pytest.fixture(scope="session")
def migrated_template(postgres_server: Postgres, folder: Path, venv: Path) -> str:
    """The name of a database at the newest migration, to be copied."""
    url = postgres_server.create()
    Service(folder, venv, folder.parent, {"DATABASE_URL": url}).flask("db", "upgrade")
    return url.rpartition("/")[2]


@pytest.fixture
def migrated(postgres_server: Postgres, migrated_template: str) -> str:
    """The URL of a new database of the test's own, at the newest migration."""
    return postgres_server.create(migrated_template)


@pytest.fixture
def trial(folder: Path, venv: Path, postgres_server: Postgres, migrated: str, tmp_path: Path) -> Iterator[Trial]:
    """A database at the newest migration of the service."""
    own = shutil.copytree(folder, tmp_path / "service")
    (tmp_path / "state").mkdir()
    newest = postgres_server.sql("SELECT version_num FROM alembic_version", migrated)[0][0]
    made = Trial(Service(own, venv, tmp_path / "state", {"DATABASE_URL": migrated}), postgres_server, migrated, newest)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for the run. Whoever freezes or restarts one starts it."""
    with redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of a Redis that has nothing."""
    redis_server.ask("FLUSHALL")
    return redis_server.patient_url


@pytest.fixture(scope="session")
def shared_on_redis(
    folder: Path, venv: Path, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    environ = {"REDIS_URL": redis_server.patient_url}
    with prepare(folder, venv, tmp_path_factory.mktemp("on-redis"), environ) as service:
        yield service


@pytest.fixture
def on_redis(shared_on_redis: Service, redis_url: str) -> Service:
    """A service that tests share, whose Redis has nothing."""
    return shared_on_redis


@pytest.fixture
def send() -> Iterator[Send]:
    """`send(service, head, head)` is a connection for each head, on which it was sent and nothing read."""
    with ExitStack() as opened:

        def send(service: Service, *heads: str) -> list[socket.socket]:
            connections = []
            for head in heads:
                connection = opened.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=20))
                connection.sendall(head.encode())
                connections.append(connection)
            return connections

        yield send


def prepare(folder: Path, venv: Path, parent: Path, environ: Mapping[str, str | None]) -> Service:
    """A service that was not started yet, with state of its own below `parent`."""
    state = parent / f"start-{len(list(parent.iterdir()))}"
    state.mkdir()
    shutil.copy(folder.parent / "app.db", state)
    return Service(folder, venv, state, environ)
