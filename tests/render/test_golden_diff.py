"""What a pull request changes in three services: seen in a history of the template's own, commit by commit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.git import ENVIRON, git, listed
from support.template import QUESTIONS, ROOT, SERVICE, load

SCRIPT = ROOT / "scripts" / "golden_diff.py"
GOLDEN: dict[str, dict[str, str]] = load(SCRIPT).GOLDEN


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """This work tree, as the first commit of a repository."""
    folder = tmp_path / "template"
    for path in listed(ROOT):
        if not path.startswith(("tests/", "benchmarks/")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "A change")


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def compare(template: Path, *commits: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/golden_diff.py", *commits]
    return subprocess.run(command, cwd=template, env=ENVIRON, capture_output=True, text=True, check=False)


def by_variant(markdown: str) -> dict[str, str]:
    _, *parts = re.split(r"^## (.+)$", markdown, flags=re.M)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_what_changed_is_shown_for_each_service_that_has_it(template: Path) -> None:
    append(template / SERVICE.name / "Makefile", "# For all of them.\n")
    append(template / SERVICE.name / "docs" / "ci-gitlab.md", "For one of them: {{ cookiecutter.domain_name }}.\n")
    commit(template)
    done = compare(template, "HEAD~1")
    assert done.returncode == 0, done.stderr
    found = by_variant(done.stdout)
    assert [*found] == [*GOLDEN]
    for variant, diff in found.items():
        assert "\n+# For all of them.\n" in diff
        on_gitlab = GOLDEN[variant].get("ci") == "gitlab"
        assert ("\n+For one of them: shop.example.com.\n" in diff) == on_gitlab
        assert f" {2 if on_gitlab else 1} file" in diff, "nothing else is different, not the commit that made it"
    assert git(template, "status", "--porcelain") == ""
    assert len(git(template, "worktree", "list").splitlines()) == 1


def test_a_change_that_reaches_no_service_says_so(template: Path) -> None:
    append(template / "README.md", "News.\n")
    commit(template)
    found = by_variant(compare(template, "HEAD~1", "HEAD").stdout)
    assert {part.strip().splitlines()[-1] for part in found.values()} == {"Nothing."}
    assert [*found] == [*GOLDEN]


@pytest.mark.with_all
def test_a_service_of_new_answers_is_compared_with_what_it_was_without_them(template: Path) -> None:
    newest = (template / "cookiecutter.json").read_text()
    older = newest.replace(', "asgi"]', "]")
    assert older != newest
    (template / "cookiecutter.json").write_text(older)
    commit(template)
    (template / "cookiecutter.json").write_text(newest)
    commit(template)
    done = compare(template, "HEAD~1")
    assert done.returncode == 0, done.stderr
    assert '\n-  "worker_class": "gthread",\n+  "worker_class": "asgi",\n' in done.stdout


def test_a_commit_that_renders_nothing_is_named(template: Path) -> None:
    append(template / SERVICE.name / "README.md", "{{ cookiecutter.nothing }}\n")
    commit(template)
    done = compare(template, "HEAD~1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"{git(template, 'rev-parse', '--short', 'HEAD')} renders nothing: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_commit_that_is_not_there_is_refused_in_one_line(template: Path) -> None:
    done = compare(template, "v0.0.0")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


def test_the_three_are_answers_that_can_be_given_and_unlike() -> None:
    for answers in GOLDEN.values():
        for name, answer in answers.items():
            choices = QUESTIONS[name]
            assert isinstance(choices, str) or answer in choices
    assert len(GOLDEN) == 3
    for question in ("worker_class", "ci"):
        assert len({answers.get(question, QUESTIONS[question][0]) for answers in GOLDEN.values()}) == 3
