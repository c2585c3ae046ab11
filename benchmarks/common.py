"""What the benchmarks share: a row of figures, and the servers that are compared."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from support.service import Service, clean_environ

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "benchmarks"
APPS = BUILD / "apps"  # a copy of benchmarks/apps, for the bytecode to be written beside it
BIN = Path(sys.executable).parent
median = statistics.median


class Row(NamedTuple):
    """One line of a table: a figure, what it is held against, their ratio, and what is promised."""

    what: str
    figure: str
    against: str = ""
    ratio: str = ""
    promise: str = ""


def promise(value: float, bound: float, unit: str) -> str:
    return f"under {bound:g} {unit}: {'kept' if value < bound else 'BROKEN'}"


def run(command: Sequence[str | Path], folder: Path, environ: Mapping[str, str]) -> str:
    """The output of a command."""
    return subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True).stdout


@cache
def service_folder() -> Path:
    """The default service, rendered and installed, with a route for trials and a migrated database beside it."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(ROOT / "benchmarks" / "apps", APPS)
    environ = clean_environ(PATH=f"{ROOT / '.uv/bin'}:{os.environ['PATH']}", HOME=str(BUILD))
    folder = BUILD / "my-service"
    run([BIN / "cookiecutter", "--no-input", ROOT], BUILD, environ)
    run([sys.executable, "scripts/bootstrap.py", "--no-dev"], folder, environ)
    (folder / "app" / "hello").mkdir()
    shutil.copy(APPS / "hello_routes.py", folder / "app" / "hello" / "routes.py")
    Service(folder, folder / ".venv", BUILD).flask("db", "upgrade")
    return folder


def server(
    kind: str, workers: int = 1, folder: Path | None = None, settings: Mapping[str, str] | None = None
) -> Service:
    """A server that is not started yet, with a database of its own and as many threads a worker as its class has.

    Args:
        kind: a worker class for the service; "hello" or "bare" for that module of `apps` under stock gthread.
        workers: processes.
        folder: another copy of the service than the default.
        settings: environment variables.
    """
    rendered = service_folder()
    ours = kind in ("gthread", "sync", "gevent", "asgi")
    state = Path(tempfile.mkdtemp(dir=BUILD))
    shutil.copy(BUILD / "app.db", state)
    environ = {
        "WEB_CONCURRENCY": str(workers),
        "GUNICORN_CMD_ARGS": "--max-requests 0",  # a new worker would begin its count of CPU time at zero
        "PYTHONDONTWRITEBYTECODE": "",  # a service that is started again has its bytecode
        "GUNICORN_WORKER_CLASS" if ours else "BENCHMARK": kind,
        **(settings or {}),
    }
    return Service((folder or rendered) if ours else APPS, rendered / ".venv", state, environ)
