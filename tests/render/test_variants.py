"""Three unlike services, and the template itself unrendered, held to what a service asks of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.answers import VARIANTS
from support.checks import PARSERS, unformatted
from support.git import listed, would_track
from support.template import ROOT, SERVICE, Render

# What whoever runs these tests has set is not for the service.
ENVIRON = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
# The Python of all of them is the same but for the answers: the others' is run and its types are checked with `--all`.
MOST = pytest.mark.parametrize(
    "service",
    [name if name == "default" else pytest.param(name, marks=pytest.mark.with_all) for name in VARIANTS],
    indirect=True,
)


@pytest.fixture(params=VARIANTS)
def service(request: pytest.FixtureRequest, render: Render, tmp_path: Path) -> Path:
    """A service of one's own, as `git clone` makes it: without what git ignores."""
    return copy(render(**VARIANTS[request.param]), tmp_path / "service", tracked=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The service as it stands in the template."""
    return copy(SERVICE, tmp_path / "source", tracked=False)


def copy(folder: Path, to: Path, *, tracked: bool) -> Path:
    for path in would_track(folder) if tracked else listed(folder):
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, to / path)
    return to


def run(venv: Path, folder: Path, *arguments: str) -> None:
    """Run a module of the service's own environment; its output is what a failure shows."""
    environ = {**ENVIRON, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(venv / "bin" / "python"), "-m", *arguments]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@MOST
def test_its_own_tests_pass(service: Path, venv: Path) -> None:
    """pytest ends with 5 where there are none."""
    run(venv, service, "pytest", "-q", "-p", "no:cacheprovider")


@MOST
def test_its_types_are_strictly_right(service: Path, venv: Path, worker_id: str) -> None:
    run(venv, service, "mypy", "--cache-dir", str(ROOT / "build" / "mypy" / worker_id))


def test_its_own_linter_finds_nothing(service: Path, venv: Path) -> None:
    assert unformatted(service, ruff=venv / "bin" / "ruff") == []


def test_the_template_unrendered_is_parsed_and_linted_as_it_stands(source: Path) -> None:
    """So that an editor, a linter and a type checker help whoever works on the template."""
    for path in listed(SERVICE):
        parse = PARSERS.get(Path(path).suffix) or PARSERS.get(Path(path).name)
        if parse and path != ".template.json":  # one variable, which becomes the whole file
            parse((source / path).read_text(encoding="utf-8"))
    assert unformatted(source) == []


def test_the_types_of_the_template_unrendered_are_strictly_right(source: Path, venv: Path, worker_id: str) -> None:
    run(venv, source, "mypy", "--cache-dir", str(ROOT / "build" / "mypy" / worker_id))


def test_python_never_sees_jinja() -> None:
    """Rendered files are compared byte for byte elsewhere; here nothing is even meant to be replaced."""
    sources = {path: (SERVICE / path).read_text(encoding="utf-8") for path in listed(SERVICE) if path.endswith(".py")}
    assert sources
    assert [path for path, text in sources.items() if "#{%" in text or "#{#" in text or "cookiecutter." in text] == []
