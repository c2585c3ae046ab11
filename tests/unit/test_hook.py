"""The hook after rendering, function by function."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.template import QUESTIONS, ROOT, SERVICE, Render, imports, load

HOOK = ROOT / "hooks" / "post_gen_project.py"
TABLE = {"a.txt": {"server": {"gunicorn"}}, "b": {"server": {"gunicorn", "uwsgi"}, "ci": {"github"}}}


@pytest.fixture(scope="session")
def hook() -> ModuleType:
    return load(HOOK)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").touch()
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "c" / "d.txt").touch()
    return tmp_path


def test_every_path_in_the_table_is_in_the_template(hook: ModuleType) -> None:
    assert [path for path in hook.KEEP if not (SERVICE / path).exists()] == []


def test_every_answer_in_the_table_can_be_given_and_a_row_has_answers_that_remove_it(hook: ModuleType) -> None:
    for path, needs in hook.KEEP.items():
        for question, allowed in needs.items():
            assert allowed < set(QUESTIONS[question]), f"{path}: {question}"


@pytest.mark.parametrize(
    ("server", "ci", "paths"),
    [
        ("gunicorn", "github", []),
        ("uwsgi", "github", ["a.txt"]),
        ("gunicorn", "none", ["b"]),
        ("waitress", "none", ["a.txt", "b"]),
    ],
)
def test_a_path_is_unneeded_unless_all_its_questions_have_an_answer_that_it_needs(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, server: str, ci: str, paths: list[str]
) -> None:
    monkeypatch.setattr(hook, "KEEP", TABLE)
    assert hook.unneeded({"server": server, "ci": ci, "cpus": "1"}) == paths


def test_a_file_and_a_folder_are_removed_and_nothing_else(hook: ModuleType, root: Path) -> None:
    (root / "e.txt").touch()
    hook.remove(root, ["a.txt", "b"])
    assert [path.name for path in root.iterdir()] == ["e.txt"]


def test_a_path_that_is_not_there_is_an_error(hook: ModuleType, root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hook.remove(root, ["c.txt"])


def test_env_is_written_by_the_services_own_script_and_leaves_no_bytecode(
    hook: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "scripts").mkdir()
    (root / "scripts" / "make_env.py").write_text("def main(root): (root / '.env').write_text('A=1')")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    hook.make_env(root)
    assert (root / ".env").read_text() == "A=1"
    assert not list(root.rglob("__pycache__"))


def test_the_next_steps_are_there_to_be_taken(hook: ModuleType) -> None:
    steps = hook.next_steps({"project_name": "K\u00e4se", "project_slug": "kase"})
    assert "cd kase && git init" in steps
    assert steps.isascii()  # a terminal of any locale can print them
    targets = re.findall(r"make ([a-z-]+)", steps)
    makefile = (SERVICE / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:.* ## ", makefile, re.M)] == []


def test_it_finishes_a_service(
    hook: ModuleType, render: Render, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder with every file of the template and the two that `make_env` needs rendered."""
    for path in [*hook.KEEP, "scripts/make_env.py", "app/capacity.py"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if (SERVICE / path).is_dir():
            (tmp_path / path).mkdir()
        else:
            (tmp_path / path).write_bytes((SERVICE / path).read_bytes())
    (tmp_path / "app" / "service.json").write_bytes((render() / "app" / "service.json").read_bytes())
    answers = json.loads((render() / ".template.json").read_text(encoding="utf-8"))["answers"]

    hook.main(answers, tmp_path)

    gone = hook.unneeded(answers)
    assert {path for path in hook.KEEP if not (tmp_path / path).exists()} == set(gone)
    assert "SECRET_KEY=" in (tmp_path / ".env").read_text()
    assert "make run" in capsys.readouterr().out


def test_it_is_short_and_stands_alone() -> None:
    source = HOOK.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 120
    assert imports(source) <= sys.stdlib_module_names
