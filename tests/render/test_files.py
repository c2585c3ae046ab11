"""Every file of a rendered service, whatever the answers were."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

from support.answers import ROWS, TEXTS, Answers, describe
from support.checks import find_faults
from support.git import listed, would_track
from support.template import QUESTIONS, ROOT, SERVICE, Render, load


@pytest.fixture(scope="session")
def hook() -> ModuleType:
    return load(ROOT / "hooks" / "post_gen_project.py")


@pytest.fixture(scope="session", params=ROWS, ids=describe)
def answers(request: pytest.FixtureRequest) -> Answers:
    given: Answers = request.param
    return given


@pytest.fixture
def service(render: Render, answers: Answers) -> Path:
    return render(**answers)


def test_every_question_is_answered_in_all_its_ways() -> None:
    assert {name for name, choices in QUESTIONS.items() if isinstance(choices, str)} == set(TEXTS)
    for name, choices in QUESTIONS.items():
        assert {row[name] for row in ROWS} == set(TEXTS.get(name, choices))


def test_every_pair_of_answers_is_rendered() -> None:
    ways = {name: {row[name] for row in ROWS} for name in QUESTIONS}
    for one, other in itertools.combinations(QUESTIONS, 2):
        assert {(row[one], row[other]) for row in ROWS} == set(itertools.product(ways[one], ways[other]))


def test_no_file_has_a_fault(service: Path) -> None:
    assert find_faults(service) == []


def test_what_the_answers_need_is_there_and_nothing_else(service: Path, answers: Answers, hook: ModuleType) -> None:
    """The tracked files are those of the template, but for what the table says is not needed."""
    unneeded = hook.unneeded(answers)
    expected = [path for path in listed(SERVICE) if not any(f"{path}/".startswith(f"{row}/") for row in unneeded)]
    assert would_track(service) == expected


def test_the_program_is_told_the_answers(service: Path, answers: Answers) -> None:
    told = json.loads((service / "app" / "service.json").read_text(encoding="utf-8"))
    short = {"project_name": "name", "project_slug": "slug"}
    deployment = {
        "platform",
        "container_registry",
        "ci",
    }  # where it runs, and how it gets there, is not for the program
    asked = {name: answer for name, answer in answers.items() if name not in deployment}
    assert {name: told[short.get(name, name)] for name in asked} == asked


def test_the_answers_are_kept_for_the_next_update(service: Path, answers: Answers) -> None:
    record = json.loads((service / ".template.json").read_text(encoding="utf-8"))
    assert record["answers"] == answers
    assert record["source"] == ROOT.as_posix()
    assert list(record) == ["source", "version", "commit", "answers", "digest"]


def test_the_readme_has_the_services_name_and_says_what_it_does(service: Path, answers: Answers) -> None:
    readme = (service / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[0] == f"# {answers['project_name']}"
    assert answers["description"] in readme.splitlines()


def test_secrets_are_written_and_git_ignores_them(service: Path) -> None:
    assert "SECRET_KEY=" in (service / ".env").read_text(encoding="utf-8")
    assert ".env" not in would_track(service)


def test_cruft_skips_what_git_ignores_and_a_machine_writes(service: Path) -> None:
    """An update by cruft renders on another machine, and a difference in one of these would spoil all of it."""
    skipped = tomllib.loads((service / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cruft"]["skip"]
    assert skipped == [".env", "secrets"]
    assert {*skipped} <= {line.rstrip("/") for line in (service / ".gitignore").read_text().splitlines()}


def test_every_row_of_the_hooks_table_is_kept_by_one_render_and_removed_by_another(
    render: Render, hook: ModuleType
) -> None:
    for path in hook.KEEP:
        for unneeded in (True, False):
            # What is in a folder goes with it.
            above = {path, *map(str, PurePosixPath(path).parents)}
            row = next(row for row in ROWS if bool(above & {*hook.unneeded(row)}) == unneeded)
            assert (render(**row) / path).exists() != unneeded
