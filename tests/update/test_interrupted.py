"""Cut short at any moment, an update has done nothing or all, and the next one works."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.edits import change, write
from support.git import git
from support.releases import Live, Template, updating_environ
from support.scenarios import SCENARIOS
from support.service import wait_for

ANYWHERE, LAST_STEP = "at any moment", "in the last step"


@pytest.fixture
def service(template: Template, tmp_path: Path) -> Live:
    """With a conflict to come, files of its own, and one that git does not know."""
    service = template.service(
        tmp_path / "service", "0.3.0", *SCENARIOS["the same line"].team, write("ours.txt", "ours\n")
    )
    write("notes.txt", "not in git\n")(service.folder)
    return service


def kill(service: Live, moment: float, when: str) -> None:
    """Start an update and kill it, with all that it started in its session, after `moment` seconds."""
    plan = service.folder / ".git" / "template-update" / "merge.json"
    process = subprocess.Popen(
        service.command(),
        cwd=service.folder,
        env=updating_environ(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while when == LAST_STEP and not plan.exists() and process.poll() is None:
        time.sleep(0.0005)
    time.sleep(moment)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it was through
        assert when == LAST_STEP
    process.wait()
    with (service.folder / ".git" / "template-update.lock").open("w") as lock:  # the last step ends by itself
        fcntl.flock(lock, fcntl.LOCK_EX)


def moments(when: str, count: int, longest: float) -> list[float]:
    chance = random.Random(when)
    return sorted(chance.uniform(0, longest) for _ in range(count))


@pytest.mark.parametrize("when", [ANYWHERE, pytest.param(LAST_STEP, marks=pytest.mark.with_all)])
def test_kill_9_leaves_the_tree_as_it_was_or_merged_and_a_second_run_works(
    service: Live, when: str, request: pytest.FixtureRequest
) -> None:
    before = service.state()
    began = time.monotonic()
    assert service.update().returncode == 1
    seconds = time.monotonic() - began if when == ANYWHERE else 0.15
    merged = service.state()
    assert service.update("--abort").returncode == 0
    outcomes = set()
    for moment in moments(when, 25 if request.config.getoption("--all") else 2, seconds):
        kill(service, moment, when)
        found = service.state()
        assert found in (before, merged), f"killed after {moment:.3f} s"
        outcomes.add(found == merged)
        if found == merged:
            assert "waits to be committed" in service.update().stderr
            assert service.update("--abort").returncode == 0
        else:
            done = service.update()
            assert done.returncode == 1, done.stderr
            assert service.state() == merged
            assert service.update("--abort").returncode == 0
        assert service.state() == before
    assert True in outcomes or when == ANYWHERE


@pytest.fixture
def saboteur(service: Live, tmp_path: Path) -> Path:
    """While this file is there, git dies in the middle of writing files, and what called it too: a power failure."""
    flag, script = tmp_path / "flag", tmp_path / "smudge"
    script.write_text(
        f'#!/bin/sh\n[ -e {flag} ] || exec cat\nrm {flag}\nkill -9 $(cut -d" " -f4 /proc/$PPID/stat) $PPID\n'
    )
    script.chmod(0o755)
    (service.folder / ".git" / "info" / "attributes").write_text("README.md filter=saboteur\n")
    git(service.folder, "config", "filter.saboteur.smudge", str(script))
    git(service.folder, "config", "filter.saboteur.clean", "cat")
    return flag


@pytest.mark.with_all
@pytest.mark.parametrize("next_command", [(), ("--abort",)])
def test_after_a_power_failure_the_next_command_puts_back_what_was_half_done(
    service: Live, saboteur: Path, next_command: tuple[str, ...]
) -> None:
    before = service.state()
    assert service.update().returncode == 1
    merged = service.state()
    assert service.update("--abort").returncode == 0
    saboteur.touch()
    cut = service.update()
    assert cut.returncode == 2
    assert cut.stderr == "The update was cut short. Take back what it did: make template-update ARGS=--abort\n"
    assert service.state() not in (before, merged), "what this test is about"
    assert (service.folder / ".git" / "index.lock").exists()
    done = service.update(*next_command)
    if next_command == ("--abort",):
        assert done.returncode == 0, done.stderr
        assert service.state() == before
    else:
        assert done.returncode == 1, done.stderr
        assert done.stderr == "An update that was cut short was taken back\n"
        assert service.state() == merged


@pytest.mark.with_all
def test_what_git_could_write_in_part_is_put_back(service: Live, saboteur: Path) -> None:
    (saboteur.parent / "smudge").write_text(f"#!/bin/sh\n[ -e {saboteur} ] || exec cat\nrm {saboteur}\nexit 1\n")
    git(service.folder, "config", "filter.saboteur.required", "true")
    saboteur.touch()
    line = service.refused()
    assert line.startswith("Git could not change the files, and nothing is changed: ")


@pytest.mark.with_all
def test_two_updates_at_once_wait_for_each_other(service: Live) -> None:
    both = [
        subprocess.Popen(
            service.command(), cwd=service.folder, env=updating_environ(), stdout=-1, stderr=-1, encoding="utf-8"
        )
        for _ in range(2)
    ]
    ends = [(process.communicate(), process.returncode) for process in both]
    codes = sorted(code for _, code in ends)
    assert codes == [1, 2], ends
    told = "".join(out + err for (out, err), _ in ends)
    assert "Waiting for another update of this service to end" in told
    assert "An update waits to be committed" in told


@pytest.mark.with_all
def test_what_was_left_by_one_that_was_killed_is_cleared_away(service: Live) -> None:
    home = service.folder / ".git" / "template-update"
    kill(service, 0.4, ANYWHERE)
    service.update()
    assert sorted(path.name for path in home.iterdir()) == ["merge.json", "stage.py", "venv"]
    assert git(service.folder, "for-each-ref", "refs/yours", "refs/template") == ""
    service.commit()
    service.update()
    assert wait_for(lambda: not (home / "merge.json").exists(), "the plan is forgotten")


@pytest.mark.with_all
def test_conflicts_half_solved_can_be_taken_back_too(service: Live) -> None:
    before = service.state()
    service.update()
    git(service.folder, "checkout", "--theirs", "--", "app/__init__.py")
    git(service.folder, "add", "app/__init__.py")
    change("README.md", "# My Service", "# Half done")(service.folder)
    assert service.update("--abort").returncode == 0
    assert service.state() == before
