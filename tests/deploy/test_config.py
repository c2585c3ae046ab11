"""Compose itself reads every variant's files without an error or a warning; a linter reads what they come to together."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.answers import ROWS
from support.docker import Docker
from support.gates import lint_composed
from support.template import Render

# One file, what in it is replaced, the defect, and what Compose then says.
DEFECTS = [
    ("compose.yaml", "services:\n", 'version: "3"\nservices:\n', "obsolete"),
    ("compose.yaml", "networks: [edge, stores", "networks: [hedge, stores", "undefined network"),
    ("compose.yaml", "  app:\n", "  app:\n    restarts: always\n", "restarts"),
    ("compose.yaml", "${HTTP_PORT:-8080}", "${HTTP_PORT}", "HTTP_PORT"),
    ("deploy/compose/production.yaml", "networks: [edge]", "networks: [hedge]", "undefined network"),
]


def files(folder: Path) -> list[Path]:
    """All of one host in production, in the order in which they are given to Compose; elsewhere, of development."""
    if not (folder / "deploy" / "compose").exists():
        return [folder / "compose.yaml"]
    return [folder / "compose.yaml", folder / "deploy" / "compose" / "production.yaml"]


def read(docker: Docker, folder: Path, paths: list[Path], *options: str) -> tuple[str, list[str]]:
    """What Compose makes of files, and what it has to say of them."""
    environ = {name: value for name, value in docker.environ.items() if not name.startswith(("COMPOSE_", "HTTP_PORT"))}
    chosen = [f"--file={path}" for path in paths]
    command = ["docker", "compose", "--profile=*", *chosen, "config", *options]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()
    return done.stdout, said or ([] if done.returncode == 0 else [f"docker compose ended with {done.returncode}"])


@pytest.mark.parametrize("answers", ROWS, ids=map(str, range(len(ROWS))))
def test_compose_has_nothing_to_say(docker: Docker, render: Render, answers: dict[str, str]) -> None:
    folder = render(**answers)
    assert read(docker, folder, [folder / "compose.yaml"], "--quiet") == ("", [])
    assert read(docker, folder, files(folder), "--quiet") == ("", [])


@pytest.mark.parametrize(("file", "right", "wrong", "finding"), DEFECTS)
def test_compose_would_say_so(
    docker: Docker, render: Render, tmp_path: Path, file: str, right: str, wrong: str, finding: str
) -> None:
    folder = shutil.copytree(render(), tmp_path / "service")
    text = (folder / file).read_text()
    assert right in text
    (folder / file).write_text(text.replace(right, wrong, 1))
    assert [line for line in read(docker, folder, files(folder), "--quiet")[1] if finding in line]


def test_the_files_of_a_host_have_no_finding_together(docker: Docker, render: Render, tmp_path: Path) -> None:
    whole, _ = read(docker, render(), files(render()))
    assert lint_composed(whole, tmp_path) == []


def test_a_defect_in_the_second_one_is_found(docker: Docker, render: Render, tmp_path: Path) -> None:
    whole, _ = read(docker, render(), files(render()))
    before, certbot, after = whole.partition("\n  certbot:\n")
    assert "read_only: true" in after
    found = lint_composed(before + certbot + after.replace("read_only: true", "", 1), tmp_path)
    assert [line for line in found if "CL-0007" in line]
