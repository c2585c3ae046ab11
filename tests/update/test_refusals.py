"""What an update refuses: one line with the command that mends it, exit code 2, nothing changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.edits import append, change, delete, write
from support.git import git
from support.releases import Edit, Live, Template, updating_environ


@pytest.fixture
def service(template: Template, tmp_path: Path) -> Live:
    return template.service(tmp_path / "service", template.releases[-1])


@pytest.fixture
def old(template: Template, tmp_path: Path) -> Live:
    return template.service(tmp_path / "service", "0.3.0")


def test_changes_that_are_not_committed(service: Live) -> None:
    append("README.md", "Ours.\n")(service.folder)
    assert service.refused() == "README.md is not committed. Commit first: git commit -a, or put aside: git stash"
    git(service.folder, "add", "README.md")
    append("Makefile", "# ours\n")(service.folder)
    assert "and 1 more are not committed" in service.refused("worker_class=sync")


def test_a_file_in_the_way_that_is_not_in_git(old: Live) -> None:
    write("app/cache.py", "ours\n")(old.folder)
    line = old.refused()
    assert line.startswith("app/cache.py is in the way")
    assert "git add -f app/cache.py" in line


def test_an_ignored_file_in_the_way(old: Live) -> None:
    old.commit(append(".gitignore", "\n# ours\ncache.py\n"))
    write("app/cache.py", "ours\n")(old.folder)
    assert old.refused().startswith("app/cache.py is in the way")


def test_a_release_that_there_is_not(service: Live) -> None:
    line = service.refused("--to=v99.0.0")
    assert "has no release v99.0.0" in line
    assert "git ls-remote --tags " in line


def test_a_question_that_is_not_asked(service: Live) -> None:
    line = service.refused("platfrom=compose")
    assert line.startswith("platfrom is no question of ")
    assert "project_name, project_slug, description, " in line


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("worker_class=eventlet", "worker_class=eventlet is no answer of "),
        ("cpus=0", "cpus='0' will not do. It must be a number from 0.1 to 256"),
        ("project_slug=My Service", "project_slug='My Service' will not do."),
        ("sync", "sync is no answer. Write it as question=answer: make template-update "),
    ],
)
def test_a_bad_answer(service: Live, answer: str, says: str) -> None:
    line = service.refused(answer)
    assert line.startswith(says)
    if "worker_class" in answer:
        assert "Choose from gthread, sync, gevent, asgi: make template-update worker_class=gthread" in line


def test_an_answer_that_was_withdrawn(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork")
    service = fork.service(tmp_path / "service", fork.releases[-1], worker_class="gevent")
    withdraw = change("../cookiecutter.json", '["gthread", "sync", "gevent", "asgi"]', '["gthread", "sync", "asgi"]')
    fork.release(withdraw)
    line = service.refused()
    assert line.startswith("worker_class=gevent is no answer of ")
    assert line.endswith("Choose from gthread, sync, asgi: make template-update worker_class=gthread")
    assert service.update("worker_class=asgi").returncode == 0


def test_a_release_that_cannot_be_rendered(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork")
    service = fork.service(tmp_path / "service", fork.releases[-1])
    fork.release(append("README.md", "{{ cookiecutter.nothing }}\n"))
    assert "has no attribute 'nothing'" in service.refused()


def rewrite(change: Callable[[dict[str, object]], object]) -> Edit:
    def edit(folder: Path) -> None:
        record = json.loads((folder / ".template.json").read_text())
        change(record)
        (folder / ".template.json").write_text(json.dumps(record))

    return edit


DAMAGE: dict[str, Edit] = {
    "is empty": write(".template.json", ""),
    "is no JSON": change(".template.json", '"answers"', "<<<<<<< yours"),
    "is no record": write(".template.json", "[]"),
    "is gone": delete(".template.json"),
    "has no source": rewrite(lambda record: record.pop("source")),
    "has no answers": rewrite(lambda record: record.pop("answers")),
    "has a number": rewrite(lambda record: record.update(version=4)),
    "another version": rewrite(lambda record: record.update(version="0.1.0")),
    "another answer": change(".template.json", '"cpus": "1"', '"cpus": "2"'),
    "another answer, without digest": rewrite(
        lambda record: (record.pop("digest"), record.update(answers={"worker_class": "other"}))
    ),
    "one answer less": rewrite(lambda record: record["answers"].pop("cpus")),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_record_that_was_edited_or_damaged(service: Live, damage: str) -> None:
    service.commit(DAMAGE[damage])
    line = service.refused()
    assert "git " in line
    command = line.partition(": ")[2].partition(" && ")[0]
    if damage == "is gone":
        command = command.replace("git add .", "git checkout HEAD~ -- .template.json")
    git(service.folder, *command.split()[1:])
    service.commit()
    assert service.update().stdout.startswith("Nothing is new"), "the command mended it"


def test_a_commit_that_the_template_no_longer_has(template: Template, tmp_path: Path) -> None:
    service = template.service(tmp_path / "service", "0.2.0")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth=1", template.folder.as_uri(), str(shallow))
    line = service.refused(f"--source={shallow}")
    assert "which this service was made from" in line
    assert "git fetch --unshallow --tags" in line


def test_a_template_that_is_not_there(service: Live, tmp_path: Path) -> None:
    line = service.refused(f"--source={tmp_path / 'gone'}")
    assert line.startswith("The template is not at ")
    assert "ARGS='--source URL'" in line


def test_a_repository_that_is_no_template(service: Live, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "empty")
    assert "has updater/main.py" in service.refused(f"--source={other}")


def test_no_repository_or_no_commit(service: Live) -> None:
    service_without = service.folder
    shutil.rmtree(service_without / ".git")
    done = service.update()
    assert (done.returncode, done.stderr.startswith("Run it in a git repository: git init")) == (2, True)
    git(service_without, "init", "--quiet")
    done = service.update()
    assert done.returncode == 2
    assert done.stderr.startswith("Commit the service first")


def test_a_git_that_is_too_old(old: Live, tmp_path: Path) -> None:
    real = shutil.which("git")
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo git version 2.34.1 && exit\nexec {real} "$@"\n')
    fake.chmod(0o755)
    line = old.refused(PATH=f"{fake.parent}:{updating_environ()['PATH']}")
    assert line == "git 2.38 or newer is needed and this is 2.34.1: apt install git"


def test_packages_that_cannot_be_had(service: Live, tmp_path: Path) -> None:
    """uv's own exit code would say that there are conflicts."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "uv").chmod(0o755)
    line = service.refused(PATH=f"{tmp_path / 'bin'}:{updating_environ()['PATH']}")
    assert line.startswith("What the updater needs could not be installed")
    assert line.endswith("make template-update")


def test_nothing_to_take_back(service: Live) -> None:
    assert service.refused("--abort").startswith("There is no update to take back")
    assert service.update("worker_class=sync").returncode == 0
    assert "make template-update ARGS=--abort" in service.refused("worker_class=gevent")
    service.commit()
    assert "git revert" in service.refused("--abort")
