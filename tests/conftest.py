"""Fixtures of every suite."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_cookies.plugin import Cookies

from support.ask import Ask
from support.template import ROOT, SERVICE, Render


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="every worker class through every test")
    parser.addoption("--pictures", action="store_true", help="take docs/*.png anew, from what a browser shows")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, without `--all`, what CI has no time for."""
    if not config.getoption("--all"):
        left_out = [item for item in items if item.get_closest_marker("with_all")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def no_bytecode() -> None:
    """The template is a source of files: running its hook must not leave `__pycache__` in what is rendered."""
    sys.dont_write_bytecode = True


@pytest.fixture(scope="session")
def render(cookies_session: Cookies) -> Render:
    """Render the template with some answers; the same answers give the same folder, which nobody changes."""
    return Render(cookies_session)


@pytest.fixture
def ask(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Run cookiecutter's own command, into a folder that is not there yet."""
    return Ask(tmp_path_factory.mktemp("home"), tmp_path / "parent" / "output")


@pytest.fixture(scope="session")
def venv(render: Render) -> Path:
    """The environment of a rendered service, made by the service's own command once for each lock file."""
    lock = (SERVICE / "uv.lock").read_bytes() + (SERVICE / "scripts" / "bootstrap.py").read_bytes()
    home = ROOT / "build" / "venvs" / hashlib.sha256(lock).hexdigest()[:16]
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # suites run in several processes; one of them makes it
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(render(), home)
            environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
            subprocess.run([sys.executable, "scripts/bootstrap.py"], cwd=home, env=environ, check=True)
            (home / "complete").touch()
    return home / ".venv"
