"""What a stranger types on the first day, on a machine with Python, git and make and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.answers import CHOICES
from support.service import clean_environ, free_port, wait_for
from support.template import ROOT, Render


@pytest.fixture(scope="module")
def bare_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with the system's tools and the Python that runs the tests, and so without uv."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    path = f"{folder}:/usr/bin:/bin"
    assert shutil.which("uv", path=path) is None
    return path


@pytest.fixture
def environ(bare_path: str) -> dict[str, str]:
    values = clean_environ(PATH=bare_path, PORT=str(free_port()), METRICS_PORT=str(free_port()))
    return {name: value for name, value in values.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


@pytest.fixture(scope="module")
def fresh(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered service that is committed, as its owner leaves it."""
    folder = tmp_path_factory.mktemp("fresh") / "my-service"
    shutil.copytree(render(), folder)
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "New service"]):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments], cwd=folder, check=True
        )
    return folder


@pytest.fixture(scope="module")
def clone(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As somebody else of the team has it: without what git ignores."""
    folder = tmp_path_factory.mktemp("clone") / "my-service"
    subprocess.run(["git", "clone", "-q", str(fresh), str(folder)], check=True)
    return folder


def run(folder: Path, environ: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=240, check=False)


@contextlib.contextmanager
def running(folder: Path, environ: dict[str, str], *command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the foreground of a terminal of its own; Ctrl-C ends it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answer(port: str, path: str) -> int | None:
    with (
        contextlib.suppress(OSError),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port))) as connection,
    ):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


def test_make_run_and_make_test_need_nothing_else_not_even_env(
    fresh: Path, clone: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    assert not (clone / ".env").exists()
    log = tmp_path / "log"
    with running(clone, environ, "make", "run", log=log) as process:
        wait_for(
            lambda: answer(environ["PORT"], "/healthz/ready") == 200 or process.poll() is not None, "it is ready", 120
        )
        assert process.poll() is None, log.read_text()
        assert answer(environ["PORT"], "/api/items") == 200
    assert (clone / ".env").stat().st_mode & 0o777 == 0o600
    assert (clone / ".env").read_text() != (fresh / ".env").read_text(), "secrets of its own"
    some = {"PYTEST_ADDOPTS": "-k health"}  # all of them are run with the sample deleted, and in tests/render
    tested = run(clone, {**environ, **some}, "make", "test")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "passed" in tested.stdout
    assert run(clone, environ, "git", "status", "--porcelain").stdout == "", "nothing that git would add"


def test_make_alone_shows_what_it_can_do(clone: Path, environ: dict[str, str]) -> None:
    shown = run(clone, environ, "make")
    assert shown.returncode == 0
    assert {"make run", "make test", "make migrate"} <= {
        " ".join(line.split()[:2]) for line in shown.stdout.splitlines()
    }


def test_no_fitting_python_is_one_line_with_the_mend(fresh: Path, environ: dict[str, str], tmp_path: Path) -> None:
    for tool in ("make", "sh", "awk", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    folder = tmp_path / "service"
    shutil.copytree(fresh, folder, ignore=shutil.ignore_patterns(".venv", ".uv"))
    refused = run(folder, {**environ, "PATH": str(tmp_path)}, "make", "run")
    assert refused.returncode != 0
    lines = [line for line in (refused.stdout + refused.stderr).splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1
    assert "Python from 3.11 to 3.14" in lines[0]
    assert "apt install python3" in lines[0]


def test_a_taken_port_is_one_line_with_the_mend(clone: Path, environ: dict[str, str], tmp_path: Path) -> None:
    with running(clone, environ, "make", "run", log=tmp_path / "log"):
        wait_for(lambda: answer(environ["PORT"], "/healthz/live") == 200, "it answers", 120)
        refused = run(clone, environ, "make", "run")
    assert refused.returncode != 0
    (line,) = [line for line in refused.stderr.splitlines() if not line.startswith("make: ***")]
    assert f"PORT={int(environ['PORT']) + 1}" in line


def test_a_caller_s_environment_beats_the_env_file(clone: Path, environ: dict[str, str], tmp_path: Path) -> None:
    production = run(clone, {**environ, "APP_ENV": "production"}, "make", "migrate")
    assert production.returncode != 0
    assert "DATABASE_URL: is missing" in production.stderr
    assert "SECRET_KEY: is missing" in production.stderr, "no production command reads .env"
    elsewhere = {**environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'elsewhere.db'}"}
    assert run(clone, elsewhere, "make", "migrate").returncode == 0
    assert (tmp_path / "elsewhere.db").exists()


@pytest.mark.with_all
def test_the_sample_can_be_deleted(fresh: Path, environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "without"
    shutil.copytree(fresh, folder, ignore=shutil.ignore_patterns(".uv", ".venv", "instance"))
    shutil.rmtree(folder / "app" / "items")
    (folder / "tests" / "test_items.py").unlink()
    linted = run(folder, environ, "make", "lint")
    assert linted.returncode == 0, linted.stdout + linted.stderr
    for worker_class in CHOICES["worker_class"]:
        environ["GUNICORN_WORKER_CLASS"] = worker_class
        tested = run(folder, environ, "make", "test")
        assert tested.returncode == 0, tested.stdout + tested.stderr
        with running(folder, environ, "make", "run", log=tmp_path / "log"):
            wait_for(lambda: answer(environ["PORT"], "/healthz/ready") == 200, f"{worker_class} is ready", 120)
            assert answer(environ["PORT"], "/") == 200
            assert answer(environ["PORT"], "/api/docs") == 200
            assert answer(environ["PORT"], "/api/items") == 404


def test_make_demo_shows_it_at_work_and_stays_up_until_control_c(environ: dict[str, str], tmp_path: Path) -> None:
    clone = tmp_path / "template"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    log = tmp_path / "log"
    with running(clone, environ, "make", "demo", log=log) as demo:
        wait_for(lambda: "It stays up at" in log.read_text() or demo.poll() is not None, "the demo is complete", 180)
        shown = log.read_text()
        assert demo.poll() is None, shown
        for expected in ('"name":"Bolt"', "422 {", '"status":"ok"', "http_requests_total", '"logger":"app.request"'):
            assert expected in shown
        assert answer(environ["PORT"], "/") == 200
        os.killpg(demo.pid, signal.SIGINT)
        demo.wait(20)
    deadline = time.monotonic() + 10
    while answer(environ["PORT"], "/healthz/live") is not None:
        assert time.monotonic() < deadline, "the service outlives the demo"
