"""Linters of the field as gates on rendered files: each returns what its tool said, nothing where that is content.

A folder holds one service or many. A tool that is missing or broken is no clean bill: it raises, or is a finding.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from support.template import ROOT

TOOLS = Path(sys.executable).parent
HERE = Path(__file__).parent
# What whoever runs the tests has set, for these tools or for Compose, is not for them.
ENVIRON = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ} | {"NO_COLOR": "1"}
YAML = """
extends: default
rules:
  # as this repository's own; the name of an image is as long as it is
  line-length: {max: 120, allow-non-breakable-inline-mappings: true}
  document-start: disable  # each file holds one document
  comments: {min-spaces-from-content: 1}  # as in Dockerfiles, shell and nginx
  braces: {max-spaces-inside: 1}
"""


def ask(folder: Path, tool: str, *arguments: str | Path) -> list[str]:
    """What a tool says that does not end with 0. One without a package for this machine may be on the PATH."""
    program = shutil.which(tool, path=f"{TOOLS}{os.pathsep}{ENVIRON['PATH']}")
    if program is None:
        raise FileNotFoundError(f"{tool} is missing: make install")
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said or [f"{tool} ended with {done.returncode}"]


def files(folder: Path, *patterns: str) -> list[Path]:
    found = sorted({path.relative_to(folder) for pattern in patterns for path in folder.rglob(pattern)})
    assert found, f"there is nothing like {' or '.join(patterns)} to look at"
    return found


def scripts(folder: Path) -> Iterable[Path]:
    """What a shell runs, by its name or by its first line."""
    for path in files(folder, "*"):
        if (folder / path).is_file():
            with (folder / path).open("rb") as file:
                first = file.readline()
            if path.suffix == ".sh" or (first.startswith(b"#!") and first.rstrip().endswith((b"/sh", b"bash"))):
                yield path


def hadolint(folder: Path) -> list[str]:
    """Dockerfiles, and by shellcheck the scripts in them."""
    return ask(folder, "hadolint", "--no-color", "--failure-threshold=style", *files(folder, "*Dockerfile*"))


def shellcheck(folder: Path) -> list[str]:
    return ask(folder, "shellcheck", "--norc", "--format=gcc", *scripts(folder))


def yamllint(folder: Path) -> list[str]:
    """YAML: a key that is there twice, a `no` that is false."""
    return ask(folder, "yamllint", "--strict", "--format=parsable", "-d", YAML, *files(folder, "*.yaml", "*.yml"))


def compose_lint(folder: Path, config: Path = HERE / "compose-lint.yaml") -> list[str]:
    """Compose files: what a container may do, what it reaches, who reaches it."""
    options = ["--fail-on=low", "--strict-config", "--skip-suppressed", "--quiet"]
    return ask(folder, "compose-lint", "check", *options, "--config", config, *files(folder, "compose.yaml"))


def lint_composed(text: str, scratch: Path) -> list[str]:
    """The same of what several files come to on a host, whose nginx is there for the world."""
    (scratch / "compose.yaml").write_text(text)
    ignored = (HERE / "compose-lint.yaml").read_text()
    (scratch / "config").write_text(f"{ignored}  CL-0005: {{exclude_services: {{nginx: the edge}}}}\n")
    return compose_lint(scratch, scratch / "config")


def trivy(folder: Path, *command: str) -> list[str]:
    # The checks are those in the binary: newer ones would come from a registry, and change under us.
    options = ["--exit-code=1", "--quiet", "--skip-version-check", f"--cache-dir={ROOT / 'build' / 'trivy'}"]
    return ask(folder, "trivy", *command, *options, ".")


def trivy_config(folder: Path) -> list[str]:
    """Dockerfiles. Manifests of Kubernetes are parts here, which `manifests.py` has it read whole."""
    return trivy(folder, "config", "--skip-check-update", "--skip-dirs=**/deploy/kubernetes")


def trivy_secret(folder: Path) -> list[str]:
    """Keys and passwords of the well-known kinds, in any file."""
    return trivy(folder, "fs", "--scanners=secret", "--skip-db-update")


GATES: dict[str, Callable[[Path], list[str]]] = {
    "hadolint": hadolint,
    "shellcheck": shellcheck,
    "yamllint": yamllint,
    "compose-lint": compose_lint,
    "trivy config": trivy_config,
    "trivy secret": trivy_secret,
}
