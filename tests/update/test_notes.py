"""What a release says to those who come from an older one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import answers
from support.edits import write
from support.releases import Template
from support.template import ROOT

FOLDER = ROOT / "docs" / "upgrade"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version in ("0.2.0", "0.9.0", "0.10.0", "1.0.0"):
        (tmp_path / f"{version}.toml").write_text(f'changed = ["what {version} brings"]\n')
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.1.0", "1.0.0", ["0.2.0", "0.9.0", "0.10.0", "1.0.0"]),
        ("0.2.0", "0.10.0", ["0.9.0", "0.10.0"]),
        ("0.2.0", "0.9.5", ["0.9.0"]),
        ("0.2.0", "0.8.0", []),
        ("1.0.0", "1.0.0", []),
        ("1.0.0", "0.1.0", []),
    ],
)
def test_only_what_lies_between_two_versions_is_told(folder: Path, old: str, new: str, told: list[str]) -> None:
    assert [notes.version for notes in answers.read_notes(old, new, folder)] == told


def test_notes_say_what_changed_what_to_do_and_what_opts_in(tmp_path: Path) -> None:
    (tmp_path / "0.2.0.toml").write_text('changed = ["a"]\ntodo = ["b"]\n[settings]\nC = "d"\n')
    (notes,) = answers.read_notes("0.1.0", "0.2.0", tmp_path)
    assert str(notes) == "0.2.0:\n  - a\n  - C: d\n  To do: b"


def test_answers_go_through_every_new_name_of_their_question(tmp_path: Path) -> None:
    (tmp_path / "0.2.0.toml").write_text('[renamed]\nmem = "memory"\n')
    (tmp_path / "0.3.0.toml").write_text('[renamed]\nmemory = "memory_mb"\n')
    notes = answers.read_notes("0.1.0", "0.3.0", tmp_path)
    assert answers.choose({"mem": "1"}, {}, {"memory_mb": "512"}, notes, "0.3.0") == {"memory_mb": "1"}


def test_notes_are_of_releases_and_can_be_read() -> None:
    versions = re.findall(r"^## (\S+)", CHANGELOG, re.M)
    files = sorted(path.stem for path in FOLDER.iterdir())
    assert set(files) <= set(versions)
    assert [notes.version for notes in answers.read_notes("0", "999")] == sorted(files, key=answers.as_numbers)


def test_an_update_tells_those_of_its_way(template: Template, tmp_path: Path) -> None:
    service = template.service(tmp_path / "service", "0.2.0")
    for done in (service.update("--check"), service.update()):
        told = re.findall(r"^(\d+\.\d+\.\d+):$", done.stdout, re.M)
        assert told[:2] == ["0.3.0", "0.4.0"]
        assert "Cursors look different" in done.stdout
        assert "max_replicas" not in done.stdout
    assert service.update("--abort").returncode == 0
    assert service.update("--check").returncode == 1
    assert service.update("--check", "--to=v0.2.0").returncode == 0


def test_a_release_without_notes_is_fine(template: Template, tmp_path: Path) -> None:
    fork = template.fork(tmp_path / "fork").release(write("docs/new.md", "New.\n"))
    service = fork.service(tmp_path / "service", fork.releases[-2])
    done = service.update()
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2, done.stdout
