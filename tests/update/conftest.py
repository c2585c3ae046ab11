"""The template with its history, once for all processes of the run."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from support.releases import Template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Template:
    """The earlier releases, and this work tree as the newest one. Who wants more of them makes a fork."""
    base = tmp_path_factory.getbasetemp()
    home = Path(base if worker_id == "master" else base.parent, "releases")
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Template(home / "flask-prod", home).build()
