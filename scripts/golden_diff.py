"""What a change does to rendered services, as Markdown: `python scripts/golden_diff.py BASE [HEAD]` (two commits).

Three sets of answers are rendered by both commits. An answer that only one of them knows is left out there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GOLDEN: dict[str, dict[str, str]] = {
    "All defaults": {},
    "A large one, asgi, on GitLab": {
        "project_name": "Order Desk",
        "domain_name": "shop.example.com",
        "worker_class": "asgi",
        "cpus": "4",
        "memory_mb": "4096",
        "max_replicas": "40",
        "container_registry": "registry.example.com/shop",
        "ci": "gitlab",
    },
    "A small one, sync, without CI": {"worker_class": "sync", "cpus": "0.5", "memory_mb": "256", "ci": "none"},
}
LONGEST = 300_000  # characters of a diff: GitHub takes a summary of 1 MiB
FENCE = "`" * 8  # pages of the service have shorter ones


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="What a change does to three rendered services, as Markdown.")
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", default="HEAD")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for side, commit in (("base", options.base), ("head", options.head)):
            git(ROOT, "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(home / side))
            git(home / side, "checkout", "--quiet", "--detach", git(ROOT, "rev-parse", f"{commit}^{{commit}}").strip())
        found = {variant: compare(home, home / str(number), number) for number, variant in enumerate(GOLDEN)}
    print("\n".join(tell(found)))


def compare(home: Path, work: Path, number: int) -> str:
    """The difference between what both commits render for one set of answers."""
    answers = [*GOLDEN.values()][number]
    for side in ("base", "head"):
        render(home / side, answers, work / side)
    options = ["--no-index", "--no-color", "--no-prefix", "--find-renames", "--stat", "--patch"]
    done = subprocess.run(["git", "diff", *options, "base", "head"], cwd=work, capture_output=True, check=False)
    if done.returncode > 1:
        sys.exit(done.stderr.decode())
    return done.stdout.decode(errors="replace")


def render(template: Path, answers: Mapping[str, str], to: Path) -> None:
    """Render a service into `to`, without what is of this machine or of the commit."""
    questions = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    known = {
        name: answer
        for name, answer in answers.items()
        if name in questions and (isinstance(questions[name], str) or answer in questions[name])
    }
    output, config = to.with_name(f"{to.name}-output"), to.with_name(f"{to.name}.json")
    output.mkdir(parents=True)
    home = {name: str(output.with_name(name)) for name in ("cookiecutters_dir", "replay_dir")}
    config.write_text(json.dumps({**home, "default_context": known}), encoding="utf-8")
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--config-file", str(config)]
    command += ["--output-dir", str(output), str(template)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        commit = git(template, "rev-parse", "--short", "HEAD").strip()
        sys.exit(f"{commit} renders nothing: " + " ".join((done.stdout + done.stderr).splitlines()[:2]))
    (folder,) = output.iterdir()
    folder.rename(to)
    (to / ".env").unlink()
    shutil.rmtree(to / "secrets", ignore_errors=True)
    record = json.loads((to / ".template.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in record.items() if name not in ("source", "commit", "digest")}
    (to / ".template.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tell(found: Mapping[str, str]) -> list[str]:
    lines = ["# What this changes in a rendered service", ""]
    for variant, diff in found.items():
        answers = ", ".join(f"`{name}={answer}`" for name, answer in GOLDEN[variant].items())
        lines += [f"## {variant}", "", *([answers, ""] if answers else [])]
        shown = diff[:LONGEST] + ("\n(cut here: it goes on)\n" if len(diff) > LONGEST else "")
        lines += [FENCE + "diff", shown.rstrip("\n"), FENCE, ""] if diff else ["Nothing.", ""]
    return lines


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
