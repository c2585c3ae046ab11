"""The same answers give the same bytes: on every machine, for everyone, at any time, and from a fresh clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.answers import TEXTS
from support.ask import Ask
from support.git import git, listed, would_track
from support.template import ROOT

ANSWERS = {name: texts[1] for name, texts in TEXTS.items()}
SITE = Path(__file__).parents[1] / "support" / "another_machine"

Files = dict[str, tuple[bytes, bool]]


def read_files(folder: Path) -> Files:
    """What git would keep of every file: its bytes, and whether it can be run."""
    paths = {path: folder / path for path in would_track(folder)}
    return {name: (path.read_bytes(), os.access(path, os.X_OK)) for name, path in paths.items()}


def render(ask: Ask, *, template: str = str(ROOT), umask: int = 0o022, **environ: str) -> Path:
    """Render with `ANSWERS`, given as an organisation's defaults: not every locale has them on a command line."""
    shutil.rmtree(ask.output, ignore_errors=True)
    ask.set_defaults(ANSWERS)
    outcome = ask.run("--no-input", template=template, umask=umask, environ=environ)
    assert outcome.exit_code == 0, outcome.output
    return ask.output / ANSWERS["project_slug"]


MACHINES = {
    "one CPU, another user": {"ANOTHER_CPUS": "1", "USER": "other", "LOGNAME": "other", "HOSTNAME": "other"},
    "another time zone": {"ANOTHER_CPUS": "2", "TZ": "Pacific/Kiritimati"},
    "many CPUs, no UTF-8": {
        "ANOTHER_CPUS": "128",
        "LC_ALL": "C",
        "LANG": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    },
    "another order of sets": {"ANOTHER_CPUS": "2", "PYTHONHASHSEED": "4", "LC_ALL": "tr_TR.UTF-8"},
}


@pytest.mark.parametrize(("machine", "umask"), [*zip(MACHINES.values(), [0, 0o077] * 2, strict=True)], ids=MACHINES)
def test_another_machine_renders_the_same_bytes_without_network_or_programs(
    ask: Ask, tmp_path: Path, machine: dict[str, str], umask: int
) -> None:
    here = read_files(render(ask))
    log, home = tmp_path / "log", tmp_path / "home"
    home.mkdir()
    other = {"PYTHONPATH": str(SITE), "ANOTHER_LOG": str(log), "HOME": str(home), "PATH": str(home), **machine}

    there = render(ask, umask=umask, **other)

    assert read_files(there) == here
    assert not log.exists(), log.read_text()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("attempt", ["socket.create_connection(('127.0.0.1', 9))", "subprocess.run(['git', 'status'])"])
def test_the_other_machine_is_unlike_this_one_and_tells_on_what_is_forbidden(tmp_path: Path, attempt: str) -> None:
    """What the test above rests on."""
    log = tmp_path / "log"
    script = f"import os, socket, subprocess, time; print(os.cpu_count(), time.time(), flush=True); {attempt}"
    environ = {**os.environ, "PYTHONPATH": str(SITE), "ANOTHER_LOG": str(log), "ANOTHER_CPUS": "77"}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False)
    cpus, clock = done.stdout.split()
    assert cpus == "77"
    assert float(clock) > time.time() + 300 * 24 * 3600
    assert "PermissionError" in done.stderr
    assert log.read_text()


def test_a_fresh_clone_renders_what_the_work_tree_renders(ask: Ask, tmp_path: Path) -> None:
    """So nothing that is needed is ignored by git."""
    repository = tmp_path / "flask-prod.git"  # cookiecutter knows a repository by its name
    for path in listed(ROOT):
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, repository / path)
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "a copy")
    here = read_files(render(ask))

    there = read_files(render(ask, template=repository.as_uri()))

    record = json.loads(there[".template.json"][0])
    assert record.pop("source") == repository.as_uri()
    assert record.pop("commit") == git(repository, "rev-parse", "HEAD")
    mine = json.loads(here[".template.json"][0])
    assert record.pop("digest") != mine["digest"]
    assert record == {name: mine[name] for name in ("version", "answers")}
    assert {**there, ".template.json": None} == {**here, ".template.json": None}
