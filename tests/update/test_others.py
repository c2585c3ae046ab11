"""Other ways to update: cruft and copier over the same scenarios, cookiecutter's replay, and rendering over a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.edits import append
from support.git import ENVIRON, git
from support.releases import COOKIECUTTER, Live, Template, updating_environ
from support.scenarios import SCENARIOS, Scenario
from support.template import ROOT, SERVICE, load

TABLE = ROOT / "docs" / "updates-compared.md"
PINS = {"cruft": "2.16.0", "copier": "9.19.1"}
# What a tool keeps for itself.
RECORDS = {".template.json", ".cruft.json", ".copier-answers.yml", "app/service.json"}
MARKS = ("<<<<<<<", "=======", ">>>>>>>")
HEAD = """# Updates compared

Each scenario is of [tests/support/scenarios.py](../tests/support/scenarios.py): a service made with an earlier release and
changed by its team, then brought to a newer one. `tests/update/test_others.py` runs all three over them (`make test-all`) and
holds this table. What it looks for: is what the team did still there, is every other file the newer release's, is a
conflict marked in the file itself, and does the exit code tell of it. `-`: nothing to object to. `not asked`: a template
for copier would have other means.

cruft {cruft} on this template; copier {copier} on a template of its own, whose releases are what this one renders; ours is
`make template-update`.

| scenario | cruft | copier | ours |
|---|---|---|---|
"""

Outcome = tuple[Path, int]  # the service, and the exit code


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of the commands of both."""
    home = ROOT / "build" / ("others-" + "-".join(PINS.values()))
    if not (home / "complete").exists():
        uv = load(SERVICE / "scripts" / "bootstrap.py").find_uv()
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        packages = [f"{name}=={version}" for name, version in PINS.items()]
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(home), *packages], check=True)
        (home / "complete").touch()
    return home / "bin"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    return {**ENVIRON, "HOME": str(tmp_path / "home"), "PYTHONPATH": ""}


def run(folder: Path, environ: Mapping[str, str], *command: object) -> int:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, check=False).returncode


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Ours")


def keep(service: Path, scenario: Scenario) -> None:
    """In git, as it was made and as its team changed it."""
    git(service, "init", "--quiet")
    commit(service)
    for edit in scenario.team:
        edit(service)
    commit(service)


def with_cruft(tools: Path, environ: dict[str, str], template: Template, scenario: Scenario, folder: Path) -> Outcome:
    since, to = reach(template, scenario)
    answers = json.dumps(dict(scenario.answers))
    command = [tools / "cruft", "create", template.folder, "--no-input", "--default-config", "--extra-context", answers]
    assert run(folder, environ, *command, "--checkout", f"v{since}") == 0
    service = folder / "my-service"
    keep(service, scenario)
    return service, run(service, environ, tools / "cruft", "update", "--skip-apply-ask", "--checkout", f"v{to}")


def with_copier(tools: Path, environ: dict[str, str], template: Template, scenario: Scenario, folder: Path) -> Outcome:
    """On a repository whose releases are what this template renders with the scenario's answers."""
    other = folder / "template"
    (other / "project").mkdir(parents=True)
    git(other, "init", "--quiet")
    (other / "copier.yml").write_text("_subdirectory: project\n")
    for version in reach(template, scenario):
        shutil.rmtree(other / "project")
        shutil.copytree(template.render(version, **target_answers(template, version, scenario)), other / "project")
        (other / "project" / "{{_copier_conf.answers_file}}.jinja").write_text("{{ _copier_answers|to_nice_yaml }}")
        commit(other)
        git(other, "tag", f"v{version}")
    since, to = reach(template, scenario)
    service = folder / "my-service"
    assert run(folder, environ, tools / "copier", "copy", "--defaults", "--vcs-ref", f"v{since}", other, service) == 0
    keep(service, scenario)
    return service, run(service, environ, tools / "copier", "update", "--defaults", "--vcs-ref", f"v{to}")


def with_ours(_: Path, __: dict[str, str], template: Template, scenario: Scenario, folder: Path) -> Outcome:
    since, to = reach(template, scenario)
    service = template.service(folder / "my-service", since, *scenario.team, **scenario.answers)
    return service.folder, service.update(f"--to=v{to}", f"--source={template.folder}").returncode


def reach(template: Template, scenario: Scenario) -> tuple[str, str]:
    return (template.releases[-2] if scenario.earlier else scenario.since), scenario.to or template.releases[-1]


def target_answers(template: Template, version: str, scenario: Scenario) -> dict[str, str]:
    asked = template.questions(version)
    renamed = {"memory_mb": "memory"}
    return {name if name in asked else renamed[name]: answer for name, answer in scenario.answers.items()}


def faults(template: Template, scenario: Scenario, service: Path, code: int) -> list[str]:
    """What is to object to, a few words each."""
    found = []
    files = {path: content for path, (_, content) in Live(service, template).files().items()}
    if any(path.endswith((".rej", ".orig")) for path in files):
        found.append("`.rej` files")
    for path, wanted in scenario.has.items():
        if path in RECORDS:
            found += ["answer lost"] if path == "app/service.json" and b'"1024"' not in files.get(path, b"") else []
            continue
        content = files.get(path, b"")
        texts = (
            [wanted] if isinstance(wanted, bytes) else [text.encode() for text in wanted if not text.startswith(MARKS)]
        )
        if not all(text in content for text in texts):
            unix = content.replace(b"\r", b"")
            in_other_lines = path in files and all(text.replace(b"\r", b"") in unix for text in texts)
            missing = "not told of" if path in scenario.conflicts else "file lost"
            found.append("line ends mixed" if in_other_lines else "change lost" if path in files else missing)
        elif scenario.conflicts.get(path) and not isinstance(wanted, bytes) and len(texts) < len(wanted):
            found += ["conflict not marked"] if b"<<<<<<<" not in content else []
    if any((service / path).exists() for path in scenario.gone):
        found.append("file came back")
    since, to = reach(template, scenario)
    old, new = (
        {
            path: content
            for path, (_, content) in Live(
                template.render(version, **target_answers(template, version, scenario)), template
            )
            .files()
            .items()
        }
        for version in (since, to)
    )
    head = set(git(service, "diff", "--name-only", "HEAD~", "HEAD").splitlines())  # what the team touched
    gone = tuple(scenario.gone)
    news = [
        path
        for path in old.keys() | new.keys()
        if old.get(path) != new.get(path) and path not in RECORDS | head | set(scenario.has) | {".env"}
    ]
    if not gone or "app/items" not in gone:
        news = [path for path in news if path not in gone]
        stale = [path for path in news if files.get(path) != new.get(path)]
        found += [f"no news in {len(stale)} files"] if stale else []
    if (code != 0) != bool(scenario.conflicts):
        found.append(f"exit code {code}")
    return list(dict.fromkeys(found))


TOOLS: dict[str, Callable[..., Outcome]] = {"cruft": with_cruft, "copier": with_copier, "ours": with_ours}


def read_row(name: str) -> list[str]:
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[1] == name:
            return cells[2:5]
    return []


@pytest.mark.with_all
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_of_the_docs_is_true(
    template: Template,
    tmp_path: Path,
    name: str,
    tools: Path,
    environ: dict[str, str],
) -> None:
    scenario = SCENARIOS[name]
    template = scenario.releases(template, tmp_path / "fork")
    cells = []
    for tool, update in TOOLS.items():
        (tmp_path / tool).mkdir()
        service, code = update(tools, environ, template, scenario, tmp_path / tool)
        asked = not (tool == "copier" and scenario.answers)
        cells.append(", ".join(faults(template, scenario, service, code)) or "-" if asked else "not asked")
    assert cells[2] == "-", "ours does all of it right"
    row = f"| {name} | {' | '.join(cells)} |"
    assert read_row(name) == cells, f"the row is now: {row}"


def test_the_table_has_every_scenario_and_its_own_explanation() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert text.startswith(HEAD.format(**PINS))
    assert [line.split(" | ")[0][2:] for line in text[len(HEAD.format(**PINS)) :].splitlines()] == list(SCENARIOS)


@pytest.mark.with_all
def test_cruft_creates_checks_shows_and_updates(
    template: Template, tmp_path: Path, tools: Path, environ: dict[str, str]
) -> None:
    newest = template.releases[-1]
    scenario = Scenario([append("app/health.py", "# ours\n")])
    cruft = tools / "cruft"
    service, code = with_cruft(tools, environ, template, scenario, tmp_path)
    assert code == 0
    assert json.loads((service / ".template.json").read_text())["version"] == newest
    assert run(service, environ, cruft, "check", "--checkout", f"v{newest}") == 0
    shown = subprocess.run(
        [cruft, "diff"], cwd=service, env=environ, capture_output=True, text=True, check=False
    ).stdout
    assert "\n-# ours\n" in shown
    assert "SECRET_KEY=" not in "".join(line for line in shown.splitlines() if line.startswith(("+", "-")))
    direct = {path: file[1] for path, file in Live(template.render(newest), template).files().items()}
    mine = {path: file[1] for path, file in Live(service, template).files().items()}
    different = {path for path in direct.keys() | mine.keys() if direct.get(path) != mine.get(path)}
    assert different == {".env", ".cruft.json", "app/health.py"}
    commit(service)
    assert Live(service, template).update().stdout.startswith("Nothing is new"), "its record is ours too"


def cookiecutter(template: Template, tmp_path: Path, *options: str, output: Path) -> None:
    config = {name: str(tmp_path / name) for name in ("cookiecutters_dir", "replay_dir")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [
        sys.executable,
        str(COOKIECUTTER),
        "--config-file",
        str(tmp_path / "config.json"),
        "--output-dir",
        str(output),
    ]
    done = subprocess.run([*command, *options], env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_cookiecutter_replays_answers_and_renders_over_a_checkout(template: Template, tmp_path: Path) -> None:
    where = str(template.newest)
    cookiecutter(template, tmp_path, "--no-input", where, "cpus=2", output=tmp_path / "first")
    cookiecutter(template, tmp_path, "--replay", where, output=tmp_path / "again")
    first, again = tmp_path / "first" / "my-service", tmp_path / "again" / "my-service"
    files, replayed = (Live(folder, template).files() for folder in (first, again))
    assert files.pop(".env") != replayed.pop(".env"), "secrets of its own"
    assert files == replayed

    git(first, "init", "--quiet")
    commit(first)
    append("app/health.py", "# ours\n")(first)
    append("notes.txt", "ours\n")(first)
    commit(first)
    env = (first / ".env").read_bytes()
    cookiecutter(template, tmp_path, "--replay", "--overwrite-if-exists", where, output=tmp_path / "first")
    assert git(first, "diff", "--name-only") == "app/health.py", "shown by git, to be chosen from"
    assert (first / ".env").read_bytes() == env
    assert (first / "notes.txt").exists()


def test_what_the_environment_of_updates_has_is_no_identity() -> None:
    """What the tests of updates rest on."""
    done = subprocess.run(["git", "var", "GIT_AUTHOR_IDENT"], env=updating_environ(), capture_output=True, check=False)
    assert done.returncode != 0
