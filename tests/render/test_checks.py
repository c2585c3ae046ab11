"""The checks themselves: each defect that they are there for is planted and found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.checks import find_faults
from support.template import Render

# A file, the text that goes to its end (None: the file is emptied), what is then found.
DEFECTS: list[tuple[str, str | None, str]] = [
    ("app/clock.py", "def broken(:\n", "app/clock.py is unparsed"),
    ("pyproject.toml", "[project\n", "pyproject.toml is unparsed"),
    ("pyproject.toml", "[project]\nname = 'twice'\n", "pyproject.toml is unparsed"),
    ("uv.lock", "= 1\n", "uv.lock is unparsed"),
    ("app/service.json", ",\n", "app/service.json is unparsed"),
    ("deploy/values.yaml", "a: [\n", "deploy/values.yaml is unparsed"),
    (".github/ci.yml", "a: b: c\n", ".github/ci.yml is unparsed"),
    ("migrations/alembic.ini", "[alembic]\n", "migrations/alembic.ini is unparsed"),
    ("notes.md", "Call it {{ cookiecutter.project_name }}.\n", "notes.md:1 has a leftover"),
    ("notes.md", "Call it {{cookiecutter.project_name}}.\n", "notes.md:1 has a leftover"),
    ("notes.md", "#{% if true %}\n", "notes.md:1 has a leftover"),
    ("notes.md", "#{# a remark #}\n", "notes.md:1 has a leftover"),
    ("notes.md", "{% if true %}\n", "notes.md:1 has a leftover"),
    ("notes.md", "It is cookiecutter.project_slug.\n", "notes.md:1 has a leftover"),
    ("app/clock.py", "# {{ cookiecutter.project_name }}\n", "app/clock.py:15 has a leftover"),
    ("app/templates/index.html", "{% if x %}{{ cookiecutter.cpus }}{% endif %}\n", "index.html"),
    ("{{cookiecutter.project_slug}}.md", "x\n", "has a leftover name"),
    ("empty.py", "", "empty.py is empty"),
    ("app/static/app.css", None, "app/static/app.css is empty"),
    ("notes.md", "\n", "notes.md is empty"),
    ("notes.md", "x", "notes.md has no newline at its end"),
    ("notes.md", "x\n\n", "notes.md has blank lines at its end"),
    ("notes.md", "\nx\n", "notes.md begins with a blank line"),
    ("notes.md", "x \nx\n", "notes.md has blanks at the end of a line"),
    ("notes.md", "x\t\nx\n", "notes.md has blanks at the end of a line"),
    ("notes.md", "x\n\n\nx\n", "notes.md has a run of blank lines"),
    ("app/clock.py", "\n\n\nx = 1\n", "app/clock.py has a run of blank lines"),
    ("notes.md", "x\r\n", "notes.md has carriage returns"),
    ("a:b.md", "x\n", "a:b.md is an illegal name on Windows"),
    ("docs/aux.md", "x\n", "docs/aux.md is an illegal name on Windows"),
    ("docs./x.md", "x\n", "docs./x.md is an illegal name on Windows"),
    ("wsgi.PY", "x\n", "wsgi.PY differs in case alone"),
    ("app/clock.py", "import os\n", "ruff check: app/clock.py:15:1: "),
    ("app/clock.py", "x = {  'a':1 }\n", "ruff format: "),
    ("app/clock.py", "\n\nX = 1\n", "app/clock.py is not the template's"),
    ("app/other.py", "X = 1\n", "app/other.py is not the template's"),
    ("app/__pycache__/clock.pyc", "x", "app/__pycache__ was left behind"),
    (".gitignore", None, ".env would be tracked"),
]


@pytest.fixture(scope="session")
def faults_before(render: Render) -> list[str]:
    return find_faults(render())


@pytest.mark.parametrize(("path", "text", "finding"), DEFECTS)
def test_a_planted_defect_is_found(
    render: Render, faults_before: list[str], tmp_path: Path, path: str, text: str | None, finding: str
) -> None:
    service = shutil.copytree(render(), tmp_path / "service")
    (service / path).parent.mkdir(parents=True, exist_ok=True)
    with (service / path).open("w" if text is None else "a", encoding="utf-8", newline="") as file:
        file.write(text or "")

    assert [fault for fault in find_faults(service) if finding in fault and fault not in faults_before]


@pytest.mark.parametrize("text", ["See https://cookiecutter.io.\n", "Made by cookiecutter.\n", "{{ other }} # {a}\n"])
def test_what_only_looks_like_a_leftover_is_none(render: Render, tmp_path: Path, text: str) -> None:
    service = shutil.copytree(render(), tmp_path / "service")
    (service / "notes.md").write_text(text, encoding="utf-8")
    assert not [found for found in find_faults(service) if "notes.md" in found]
