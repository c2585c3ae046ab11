"""Years of a service, one thing at a time (`support/scenarios.py`): what each side did is there afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.git import git
from support.releases import Live, Template, works
from support.scenarios import APART, MANY, SCENARIOS, Scenario

ALL = {**MANY, **SCENARIOS}
# The others, each by itself, and the tests of each service, are asked with --all.
CI = {*MANY, *APART[1:]}


def alone(*names: str) -> list[object]:
    """Every scenario, those but `names` with --all alone."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.with_all) for name in ALL]


@pytest.fixture
def untouched() -> dict[str, bytes]:
    """What is not in git, or only the team's, before and after."""
    return {"notes.txt": b"ours, and not in git\n", "instance/app.db": b"ours, and ignored\n"}


@pytest.mark.parametrize("name", alone(*CI))
def test_what_both_sides_did_is_there_afterwards(
    template: Template, tmp_path: Path, name: str, untouched: dict[str, bytes]
) -> None:
    scenario = ALL[name]
    service = scenario.prepare(template, tmp_path / "service")
    for path, content in untouched.items():
        (service.folder / path).parent.mkdir(exist_ok=True)
        (service.folder / path).write_bytes(content)
    untouched |= {".env": (service.folder / ".env").read_bytes()}
    before = service.state()

    done = update(service, scenario)

    assert done.returncode == (1 if scenario.conflicts else 0), done.stdout + done.stderr
    assert service.conflicts() == set(scenario.conflicts), done.stdout
    for path in scenario.conflicts:
        assert path in done.stdout, "each is named"
    for path, wanted in scenario.has.items():
        content = (service.folder / path).read_bytes()
        assert content == wanted if isinstance(wanted, bytes) else all(text.encode() in content for text in wanted), (
            path
        )
    assert not [path for path in scenario.gone if (service.folder / path).exists()]
    assert git(service.folder, "rev-parse", "HEAD") == before[0], "nothing is committed"
    assert {path: (service.folder / path).read_bytes() for path in untouched} == untouched
    own = own_files(service)
    assert {path: file for path, file in service.files().items() if path in own} == own

    aborted = service.update("--abort")
    assert aborted.returncode == 0, aborted.stdout + aborted.stderr
    assert service.state() == before
    assert git(service.folder, "status", "--porcelain", "--untracked-files=no") == ""


def update(service: Live, scenario: Scenario) -> subprocess.CompletedProcess[str]:
    to = [f"--to=v{scenario.to}"] if scenario.to else []
    source = [] if service.template.folder.name == "flask-prod" else [f"--source={service.template.folder}"]
    return service.update(*to, *source)


def own_files(service: Live) -> dict[str, tuple[str, bytes]]:
    """What the team made that no release has a file of the name of, as the last commit has it."""
    rendered = {
        path for folder in service.template.rendered.values() for path in Live(folder, service.template).files()
    }
    tracked = set(git(service.folder, "ls-tree", "-r", "--name-only", "HEAD").splitlines())
    return {path: file for path, file in service.files().items() if path in tracked - rendered}


@pytest.mark.parametrize("name", alone("many in history"))
def test_then_its_tests_pass_and_it_starts(
    template: Template, tmp_path: Path, name: str, request: pytest.FixtureRequest, venv: Path
) -> None:
    scenario = ALL[name]
    service = scenario.prepare(template, tmp_path / "service")
    update(service, scenario)
    for path, side in scenario.conflicts.items():
        if side == "delete":
            git(service.folder, "rm", "--quiet", path)
        else:
            git(service.folder, "checkout", f"--{side}", "--", path)
    service.commit()
    works(service.folder, tmp_path, venv, tests=bool(request.config.getoption("--all")))
