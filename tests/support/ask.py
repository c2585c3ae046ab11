"""Cookiecutter's own command, asked for a service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner
from cookiecutter.cli import main

from support.template import ROOT

COMMAND = Path(sys.executable).with_name("cookiecutter")


@dataclass(frozen=True)
class Outcome:
    """What a run of the command came to.

    Attributes:
        output: what it printed, errors among it.
        left: the paths that it made, beside and below the folder that it was told to write into.
        error: the exception with which it ended, for a traceback.
    """

    exit_code: int
    output: str
    left: list[str]
    error: BaseException | None = None


class Ask:
    """`ask(project_slug="../x")` runs `cookiecutter --no-input TEMPLATE project_slug=../x`."""

    def __init__(self, home: Path, output: Path) -> None:
        self.output = output
        self.config = home / "config.yaml"
        self.set_defaults({})

    def set_defaults(self, answers: Mapping[str, str]) -> None:
        """The answers of an organisation's `--config-file`; nothing of the user's own home is read or written."""
        folders = {name: str(self.config.parent / name) for name in ("cookiecutters_dir", "replay_dir")}
        text = json.dumps({**folders, "default_context": answers}, ensure_ascii=False)  # JSON is YAML
        self.config.write_text(text, encoding="utf-8")

    def arguments(self, *options: str, template: str = str(ROOT)) -> list[str]:
        return [
            "--config-file",
            str(self.config),
            "--output-dir",
            str(self.output),
            *options[:1],
            template,
            *options[1:],
        ]

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.output.parent)) for path in self.output.parent.rglob("*"))

    def __call__(self, **answers: str) -> Outcome:
        """In this process: a tenth of a second."""
        given = [f"{name}={answer}" for name, answer in answers.items()]
        result = CliRunner().invoke(main, self.arguments("--no-input", *given))
        error = None if isinstance(result.exception, SystemExit) else result.exception
        return Outcome(result.exit_code, result.output, self.left(), error)

    def run(
        self,
        *options: str,
        template: str = str(ROOT),
        typed: str = "",
        environ: Mapping[str, str] | None = None,
        umask: int = -1,
    ) -> Outcome:
        """In a process of its own, from the template's folder."""
        done = subprocess.run(
            [sys.executable, COMMAND, *self.arguments(*options, template=template)],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            umask=umask,
            input=typed,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, self.left())
