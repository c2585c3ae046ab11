"""Jobs of a rendered service's CI: what a shell does of them is run here, as the platform would run it.

What is not run: actions of others, GitHub's and GitLab's own services, and the packages that a job gets from Debian.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Done = subprocess.CompletedProcess[str]


class GitHub:
    """The steps of a job that are scripts, one after the other."""

    def __init__(self, home: Path, values: Mapping[str, str]) -> None:
        """`values`: what each expression in `${{ }}` comes to, outputs of steps aside."""
        self.home = home
        self.values = values

    def run(self, folder: Path, job: str, environ: Mapping[str, str]) -> Done:
        outputs: dict[str, str] = {}
        done = Done([], 0, "", "")
        for number, step in enumerate(github_job(folder, job)["steps"]):
            if "run" not in step or not self.is_wanted(step, outputs):
                continue
            files = {name: self.home / f"{name}-{number}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
            for file in files.values():
                file.write_text("")
            own = {name: self.expand(str(text), outputs) for name, text in step.get("env", {}).items()}
            step_environ = {**environ, **{name: str(file) for name, file in files.items()}, **own}
            assert "${{" not in step["run"], "an expression in a script is a way in"
            script = self.home / f"step-{number}.sh"
            script.write_text(step["run"])
            one = execute(["bash", "-e", str(script)], folder, step_environ)
            done = Done([], one.returncode, done.stdout + one.stdout, done.stderr + one.stderr)
            for name, _, value in (line.partition("=") for line in files["GITHUB_OUTPUT"].read_text().splitlines()):
                outputs[f"steps.{step['id']}.outputs.{name}"] = value
            if one.returncode:
                break
        return done

    def is_wanted(self, step: Mapping[str, Any], outputs: Mapping[str, str]) -> bool:
        return "if" not in step or bool({**self.values, **outputs}[step["if"]])

    def expand(self, text: str, outputs: Mapping[str, str]) -> str:
        return re.sub(r"\$\{\{ (.+?) \}\}", lambda match: {**self.values, **outputs}[match[1]], text)


class GitLab:
    """The script of a job, in one shell."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, folder: Path, job: str, environ: Mapping[str, str]) -> Done:
        script = self.home / f"{job}.sh"
        script.write_text("set -eo pipefail\n" + "\n".join(gitlab_job(folder, job)["script"]) + "\n")
        return execute(["bash", str(script)], folder, environ)


def github_job(folder: Path, job: str) -> dict[str, Any]:
    """A job by its name, which no two workflows share."""
    workflows = [yaml.safe_load(path.read_text()) for path in (folder / ".github" / "workflows").glob("*.yml")]
    (found,) = (workflow["jobs"][job] for workflow in workflows if job in workflow["jobs"])
    return dict(found)


def gitlab_job(folder: Path, job: str) -> dict[str, Any]:
    jobs: dict[str, Any] = {}
    for path in (folder / ".gitlab-ci.yml", *(folder / ".gitlab").glob("*.yml")):
        jobs |= yaml.safe_load(path.read_text())
    return dict(jobs[job])


def execute(command: list[str], folder: Path, environ: Mapping[str, str]) -> Done:
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
