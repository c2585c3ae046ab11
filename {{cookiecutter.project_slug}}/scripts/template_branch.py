"""Commit the template's news on a branch of its own, and print its name: for the scheduled job of CI.

Nothing is printed where nothing is new. What is in conflict is committed as git left it, with its markers and a list of
it in the message, for a person to solve on that branch. Standard library only; the caller pushes. docs/update.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bootstrap import find_uv

UPDATE = [sys.executable, str(Path(__file__).with_name("template_update.py"))]
HOW = """
These are in conflict, and committed as git left them, with its markers. Solve them on this branch. Or do the update on
your machine, where git has both sides of each, and push it over this branch: make template-update
"""
BOTH = "changed on both sides"
# By git's two letters for what each side did, or by path.
KINDS = {
    "DU": "deleted here, changed by the template: git rm it again, or keep it",
    "UD": "changed here, deleted by the template: keep it, or git rm it",
    "uv.lock": "the template's is there: solve pyproject.toml, then make lock",
}


def main() -> None:
    checked = subprocess.run([*UPDATE, "--check"], stdout=subprocess.PIPE, text=True, check=False)
    print(checked.stdout, end="", file=sys.stderr)
    if checked.returncode != 1:  # nothing is new, or the update is refused
        sys.exit(checked.returncode)
    merged = subprocess.run(UPDATE, stdout=sys.stderr, check=False)
    if merged.returncode > 1:
        sys.exit(merged.returncode)
    conflicts = find_conflicts()
    if "uv.lock" in conflicts and "pyproject.toml" not in conflicts and lock():
        del conflicts["uv.lock"]
    git("add", "--update")
    record = json.loads(Path(".template.json").read_text(encoding="utf-8"))
    branch = f"template/{record['version']}-{record['commit'][:7]}"
    git("switch", "--quiet", "--force-create", branch)
    subject, _, news = checked.stdout.partition("\n")
    lines = [f"- {path}: {KINDS.get(path) or KINDS.get(kind, BOTH)}" for path, kind in conflicts.items()]
    subject += f", {len(lines)} in conflict" if lines else ""
    message = "\n".join([subject, "", news, *([HOW, *lines] if lines else [])])
    git("commit", "--quiet", "--cleanup=whitespace", f"--message={message}")
    print(branch)


def find_conflicts() -> dict[str, str]:
    """The paths that git could not merge, and its two letters for what each side did."""
    listed = git("status", "--porcelain", "-z", "--untracked-files=no").split("\0")
    return {line[3:]: line[:2] for line in listed if "U" in line[:2] or line[:2] in ("AA", "DD")}


def lock() -> bool:
    """Put this service's dependencies into the template's lock file, as docs/update.md says; whether that went well."""
    done = subprocess.run([find_uv(), "lock", "--quiet"], stdout=sys.stderr, check=False)
    return done.returncode == 0


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S607


if __name__ == "__main__":
    main()
