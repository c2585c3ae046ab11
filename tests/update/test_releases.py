"""From each earlier release to this one, and from answers to other answers: the tree is the one rendered directly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from support.answers import CHOICES, VARIANTS, Answers
from support.edits import change, delete, write
from support.git import git
from support.releases import RELEASES, Live, Template, updating_environ, without_env
from support.scenarios import in_crlf
from support.template import SERVICE, load


def known(template: Template, version: str, answers: Answers) -> Answers:
    """Those of the answers that could be given at a release."""
    questions = template.questions(version)
    return {
        name: answer
        for name, answer in answers.items()
        if name in questions and (isinstance(questions[name], str) or answer in questions[name])
    }


def is_as_rendered(service: Live, version: str, answers: Answers) -> None:
    direct = service.template.render(version, **answers)
    assert without_env(service.files()) == without_env(Live(direct, service.template).files())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("version", RELEASES)
def test_a_service_of_an_earlier_release_becomes_one_of_this(
    template: Template, tmp_path: Path, version: str, variant: str
) -> None:
    answers = known(template, version, VARIANTS[variant])
    service = template.service(tmp_path / "service", version, **answers)
    env = (service.folder / ".env").read_bytes()
    done = service.update()
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(service.folder, "diff", "--name-only") == "", "all of it is staged"
    assert git(service.folder, "ls-files", "--others", "--exclude-standard") == ""
    is_as_rendered(service, template.releases[-1], answers)
    assert (service.folder / ".env").read_bytes() == env
    service.commit()
    again = service.update()
    assert (again.returncode, again.stdout.startswith("Nothing is new")) == (0, True)


def rounds(choices: list[str], *, every_pair: bool) -> list[str]:
    """Answers one after the other, from the first and back to it; every two of them next to each other, if wanted."""
    pairs = [answer for pair in combinations(choices, 2) for answer in pair]
    return [*(pairs if every_pair else choices), choices[0]]


def test_a_round_has_every_pair() -> None:
    way = rounds(["a", "b", "c", "d"], every_pair=True)
    assert len(set(pairwise(way))) == len(way) - 1 == 12


@pytest.mark.parametrize(
    "question",
    [pytest.param(name, marks=pytest.mark.with_all if name in ("ci", "worker_class") else ()) for name in CHOICES],
)
def test_an_answer_is_switched_and_back(
    template: Template, tmp_path: Path, question: str, request: pytest.FixtureRequest
) -> None:
    """From each to the next in CI, between every two with --all: the tree is the one rendered directly."""
    newest = template.releases[-1]
    first, *way = rounds(CHOICES[question], every_pair=request.config.getoption("--all"))
    service = template.service(tmp_path / "service", newest, **{question: first})
    for answer in way:
        done = service.update(f"{question}={answer}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f" -> {answer}\n" in done.stdout
        service.commit()
        is_as_rendered(service, newest, {question: answer})


def test_all_releases_in_one_jump_and_one_by_one_give_the_same(template: Template, tmp_path: Path) -> None:
    """With changes of the team's, which conflict with nothing."""
    edits = [
        change("app/__init__.py", '"""The service. ', '"""The service of orders. '),
        write("app/orders/__init__.py", '"""Ours."""\n'),
        delete("app/items", "tests/test_items.py"),
    ]
    trees = []
    first, *rest = template.releases
    for name, ways in (("jump", rest[-1:]), ("steps", rest)):
        service = template.service(tmp_path / name, first, *edits)
        for version in ways:
            done = service.update(f"--to=v{version}")
            assert done.returncode == 0, done.stdout + done.stderr
            service.commit()
        trees.append(git(service.folder, "rev-parse", "HEAD^{tree}"))
    assert trees[0] == trees[1]


def test_an_answer_is_switched_in_what_the_team_changed(template: Template, tmp_path: Path) -> None:
    mine = change("app/service.json", '"name": "My Service"', '"name": "Orders"')
    service = template.service(tmp_path / "service", template.releases[-1], mine)
    assert service.update("worker_class=sync", "max_replicas=3").returncode == 0
    found = json.loads((service.folder / "app" / "service.json").read_text())
    assert (found["name"], found["worker_class"], found["max_replicas"]) == ("Orders", "sync", "3")


def test_the_platform_is_switched_there_and_back(template: Template, tmp_path: Path) -> None:
    """What only one platform has comes and goes; nothing else changes."""
    trees = []
    for platforms in (["compose"], ["kubernetes", "compose"]):
        service = template.service(tmp_path / f"over-{len(platforms)}", template.releases[-1])
        for platform in platforms:
            done = service.update(f"platform={platform}")
            assert done.returncode == 0, done.stdout + done.stderr
            service.commit()
            assert [path.name for path in (service.folder / "deploy").glob("*/release.py")] == ["release.py"]
            assert (service.folder / "deploy" / platform / "release.py").exists()
            assert (service.folder / "docs" / f"{platform}.md").exists()
        trees.append(git(service.folder, "rev-parse", "HEAD^{tree}"))
    assert trees[0] == trees[1]


def test_make_passes_answers_and_options_on(template: Template, tmp_path: Path) -> None:
    service = template.service(tmp_path / "service", template.releases[-1])
    description = "Orders & more; (for us), it\N{RIGHT SINGLE QUOTATION MARK}s ours!"
    command = [
        "make",
        "template-update",
        f"description={description}",
        "cpus=2",
        "ARGS=--diff",
        f"PYTHON={sys.executable}",
    ]
    shown = subprocess.run(
        command, cwd=service.folder, env=updating_environ(), capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"\n+{description}\n" in shown.stdout
    assert '\n+  "cpus": "2",\n' in shown.stdout
    assert git(service.folder, "status", "--porcelain") == ""
    command[4] = "ARGS="
    assert subprocess.run(command, cwd=service.folder, env=updating_environ(), check=False).returncode == 0
    assert f"\n{description}\n" in (service.folder / "README.md").read_text()


@pytest.mark.parametrize("kept", ["in the work tree alone", "in the repository"])
def test_lines_that_end_as_on_windows_are_no_conflict(template: Template, tmp_path: Path, kept: str) -> None:
    service = template.service(tmp_path / "service", "0.3.0")
    (service.folder / ".gitattributes").write_text("* text=auto eol=crlf\n" if kept == "in the work tree alone" else "")
    paths = git(service.folder, "ls-files").splitlines()
    if kept == "in the repository":
        service.commit(in_crlf(*paths))
    else:
        service.commit()
        for path in paths:
            (service.folder / path).unlink()
        git(service.folder, "checkout", "--force", "HEAD", "--", ".")
    service.commit(change("app/health.py", "from __future__", "# ours\r\nfrom __future__"))

    done = service.update()

    assert done.returncode == 0, done.stdout + done.stderr
    assert git(service.folder, "diff", "--name-only") == ""
    for path in git(service.folder, "ls-files").splitlines():
        content = (service.folder / path).read_bytes()
        assert content.count(b"\n") == content.count(b"\r\n") or path == ".gitattributes", path
    assert b"# ours\r\n" in (service.folder / "app" / "health.py").read_bytes()
    assert (service.folder / "app" / "breaker.py").exists()


def test_both_lock_files_become_one_by_the_documented_command(template: Template, tmp_path: Path) -> None:
    service = template.service(tmp_path / "service", "0.3.0")
    own = change("pyproject.toml", '  "sqlalchemy>=2.0.43,<2.1"', '  "humanize>=4",\n  "sqlalchemy>=2.0.43,<2.1"')
    own(service.folder)
    uv = load(SERVICE / "scripts" / "bootstrap.py").find_uv()
    subprocess.run([uv, "lock", "--quiet"], cwd=service.folder, check=True)
    service.commit()

    done = service.update()

    assert (done.returncode, service.conflicts()) == (1, {"uv.lock"}), done.stdout + done.stderr
    (command,) = re.findall(r"Lock again: (.*)", done.stdout)
    environ = updating_environ()
    subprocess.run(f"PYTHON={sys.executable} {command}", shell=True, cwd=service.folder, env=environ, check=True)
    assert service.conflicts() == set()
    lock = (service.folder / "uv.lock").read_text()
    assert 'name = "humanize"' in lock
    assert 'name = "flask-limiter"' in lock, "which the template brought"
    ours = re.findall(r'\[\[package\]\]\nname = "(.*)"\nversion = "(.*)"', lock)
    theirs = re.findall(r'\[\[package\]\]\nname = "(.*)"\nversion = "(.*)"', (SERVICE / "uv.lock").read_text())
    assert {package for package in ours if package not in theirs} == {
        package for package in ours if package[0] in ("my-service", "humanize")
    }, "nothing else was raised"
    subprocess.run([uv, "lock", "--check", "--quiet"], cwd=service.folder, check=True)
