"""The numbers that a running deployment has agree with each other, on any machine and for any answers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boot.conftest import Start, prepare
from support.answers import VARIANTS
from support.postgres import postgres
from support.service import Service, clean_environ, wait_for
from support.template import SERVICE, Render, load

capacity = load(SERVICE / "app" / "capacity.py")


def read_gunicorn(folder: Path, venv: Path) -> dict[str, float]:
    """The seconds that Gunicorn takes from its configuration file."""
    printed = subprocess.run(
        [venv / "bin" / "gunicorn", "--print-config"],
        cwd=folder,
        env=clean_environ(APP_ENV="development", SECRET_KEY="k" * 40),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {"timeout": "request", "graceful_timeout": "graceful", "keepalive": "keepalive"}
    return {
        names[name]: float(value) for name, value in re.findall(r"^(\w+) += (\d+)$", printed, re.M) if name in names
    }


def read_directives(file: str, **names: str) -> Callable[[Path, Path], dict[str, float]]:
    """A reader of seconds that stand after words of a file, once each: nginx's directives, keys of YAML."""

    def read(folder: Path, venv: Path) -> dict[str, float]:
        text = (folder / file).read_text()
        found = {}
        for name, words in names.items():
            (seconds,) = re.findall(rf"^{words} (\d+)s\b", text, re.M)
            found[name] = float(seconds)
        return found

    return read


# A file of a rendered service that holds seconds, how they are read back from it, and a defect that breaks a ladder.
READERS: dict[str, tuple[Callable[[Path, Path], dict[str, float]], tuple[str, str]]] = {
    "gunicorn.conf.py": (read_gunicorn, ('timeout = int(capacity.SECONDS["request"])', "timeout = 31")),
    "compose.yaml": (
        read_directives(
            "compose.yaml",
            grace="  stop_grace_period:",
            edge_grace="    stop_signal: SIGQUIT.*\\n    stop_grace_period:",
        ),
        ("  stop_grace_period: 45s", "  stop_grace_period: 40s"),
    ),
    "deploy/nginx/nginx.conf": (
        read_directives(
            "deploy/nginx/nginx.conf",
            first_bytes="    client_header_timeout",
            proxy_idle="    keepalive_timeout",
            edge_graceful="worker_shutdown_timeout",
        ),
        ("    keepalive_timeout 75s", "    keepalive_timeout 60s"),
    ),
    "deploy/nginx/proxy.conf": (
        read_directives("deploy/nginx/proxy.conf", proxy="proxy_read_timeout"),
        ("proxy_read_timeout 30s", "proxy_read_timeout 25s"),
    ),
    "deploy/nginx/upstream.conf": (
        read_directives("deploy/nginx/upstream.conf", upstream_idle="    keepalive_timeout"),
        ("keepalive_timeout 60s", "keepalive_timeout 75s"),
    ),
}


def read_seconds(folder: Path, venv: Path) -> dict[str, float]:
    """What the files say, and for parts of a deployment that no file describes yet what they are expected to have."""
    found = dict(capacity.SECONDS)
    for reader, _ in READERS.values():
        found |= reader(folder, venv)
    return found


def broken_rungs(seconds: dict[str, float]) -> list[str]:
    """Those of the service, and nginx's own stop between how long a request may take there and who waits for it."""
    found: list[str] = capacity.broken_rungs(seconds)
    if not seconds["proxy"] < seconds["edge_graceful"] < seconds["edge_grace"]:
        found.append("a stop of nginx cuts off requests that the service still answers")
    return found


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_the_ladders_hold_in_what_is_rendered(render: Render, venv: Path, answers: dict[str, str]) -> None:
    seconds = read_seconds(render(**answers), venv)
    assert broken_rungs(seconds) == []
    assert {name: seconds[name] for name in capacity.SECONDS} == capacity.SECONDS


@pytest.mark.parametrize("file", READERS)
def test_a_wrong_number_in_a_file_is_found(render: Render, venv: Path, tmp_path: Path, file: str) -> None:
    _, (right, wrong) = READERS[file]
    assert broken_rungs(read_seconds(change(render(), tmp_path, file, right, wrong), venv))


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("deploy/nginx/nginx.conf", "worker_shutdown_timeout 35s", "worker_shutdown_timeout 30s"),
        ("compose.yaml", "    stop_grace_period: 45s", "    stop_grace_period: 35s"),
    ],
)
def test_a_stop_of_nginx_that_is_too_short_is_found(
    render: Render, venv: Path, tmp_path: Path, file: str, right: str, wrong: str
) -> None:
    assert broken_rungs(read_seconds(change(render(), tmp_path, file, right, wrong), venv))


def change(service: Path, scratch: Path, file: str, right: str, wrong: str) -> Path:
    """A copy of a service with a defect in it."""
    folder = scratch / "service"
    shutil.copytree(service, folder)
    text = (folder / file).read_text()
    assert right in text
    (folder / file).write_text(text.replace(right, wrong))
    return folder


@pytest.fixture(params=[0.5, 1.5])
def quota(request: pytest.FixtureRequest) -> Iterator[tuple[float, Path]]:
    """CPUs, and a control group of this test's own that has no more."""
    cpus: float = request.param
    root = Path("/sys/fs/cgroup")
    group = (root / "cpu" if (root / "cpu").is_dir() else root) / f"flask-prod-{os.getpid()}"
    group.mkdir()
    if group.parent == root:
        (group / "cpu.max").write_text(f"{int(cpus * 100_000)} 100000")
    else:
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text(str(int(cpus * 100_000)))
    yield cpus, group

    def removed() -> bool:
        with contextlib.suppress(OSError):  # the last process in it takes a moment to be gone
            group.rmdir()
        return not group.exists()

    wait_for(removed, "the control group is empty")


@pytest.mark.default_class
def test_inside_a_quota_it_starts_what_the_quota_allows(
    quota: tuple[float, Path], folder: Path, venv: Path, tmp_path: Path, variant: str
) -> None:
    assert os.geteuid() == 0, "only root may make a control group: sudo make test-all"
    cpus, group = quota
    service = prepare(folder, venv, tmp_path, {"WEB_CONCURRENCY": None})
    service.cgroup = group
    with service:
        service.wait_for_log(message=rf"{cpus:g} CPU and \d+ MB \(CPU by cgroup")
        wanted = capacity.plan(capacity.Limits(cpus, 512, ""), variant).workers
        assert len(service.wait_for_workers(wanted)) == wanted


def ask(folder: Path, *arguments: str, **environ: str) -> str:
    """What `python -m app.capacity` prints, with the standard library alone."""
    command = [sys.executable, "-S", "-m", "app.capacity", *arguments]
    return subprocess.run(
        command, cwd=folder, env=clean_environ(**environ), capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.default_class
def test_the_card_and_the_running_service_say_the_same(start: Start, folder: Path, variant: str) -> None:
    card = json.loads(ask(folder, "--json", "--worker-class", variant))
    service = start(WEB_CONCURRENCY=None)
    assert len(service.wait_for_workers(card["plan"]["workers"])) == card["plan"]["workers"]
    threads = card["plan"]["workers"] * card["plan"]["threads"]
    service.wait_for_metrics(lambda m: m.total("server_threads") == threads, f"{threads} threads")
    for number in ("workers", "threads", "memory_mb", "reason"):
        assert str(card["plan"][number]) in ask(folder, "--worker-class", variant)


def preflight(service: Service) -> dict[str, dict[str, object]]:
    done = subprocess.run(
        [service.venv / "bin" / "flask", "preflight", "--json"],
        cwd=service.folder,
        env=service.all_environ,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    return {check["check"]: check for check in told["checks"]}


@pytest.mark.default_class
@pytest.mark.parametrize(("accepted", "enough"), [("40", False), ("120", True)])
def test_preflight_counts_connections_of_a_real_database(
    folder: Path, venv: Path, tmp_path: Path, accepted: str, enough: bool
) -> None:
    with postgres(max_connections=accepted) as server:
        environ = {"APP_ENV": "production", "DATABASE_URL": server.url, "TRUSTED_PROXY_HOPS": "1"}
        service = prepare(folder, venv, tmp_path, {**environ, "GUNICORN_WORKER_CLASS": "gthread"})
        assert not preflight(service)["migrations"]["ok"], "nothing was migrated"
        service.flask("db", "upgrade")
        checks = preflight(service)
        assert checks["connections"]["ok"] == enough
        assert f"of {int(accepted) - 3} connections" in str(checks["connections"]["detail"])
        assert [name for name, check in checks.items() if not check["ok"]] == ([] if enough else ["connections"])
