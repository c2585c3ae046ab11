"""`make release VERSION=0.5.0`: one commit and a tag, then one commit that puts the release into the tests of updates.

The changelog's first section may be of this version already, or be called "Unreleased". Nothing is pushed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
HISTORY = "tests/update/history"
RELEASES = "tests/update/releases.json"
# A file that names the version, and how: what stands before it, and after.
PLACES = {
    "pyproject.toml": ('\nversion = "', '"'),
    "cookiecutter.json": ('"__version": "', '"'),
    "uv.lock": ('name = "flask-prod-template"\nversion = "', '"'),
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="make release", description="Release the template.")
    parser.add_argument("version", help="like 0.5.0; it must be newer than the last one")
    parser.add_argument(
        "--remember", action="store_true", help="only put a tag that is there into the tests of updates"
    )
    options = parser.parse_args(arguments)
    version: str = options.version
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        refuse(f"{version} is no version. Name one: make release VERSION=0.5.0")
    if git("status", "--porcelain"):
        refuse("The work tree has changes. Commit them first: git commit -a")
    if not options.remember:
        release(version)
    remember(version)
    print(f"Released {version}. Publish it: git push --follow-tags")


def release(version: str) -> None:
    """Set the version where it stands, date the changelog's section, commit, tag."""
    if git("tag", "--list", f"v{version}"):
        refuse(f"v{version} is released already. The next one: make release VERSION={bump(version)}")
    last = max((numbers(tag) for tag in git("tag", "--list", "v*").split()), default=[])
    if numbers(version) <= last:
        refuse(f"{version} is older than v{'.'.join(map(str, last))}. Choose a newer one")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## (Unreleased|{re.escape(version)}\b.*)$", changelog, re.M)
    if section is None or section.start() != changelog.find("## "):
        refuse(f"CHANGELOG.md does not begin with what {version} brings. Write it under: ## Unreleased")
    dated = f"## {version} ({datetime.datetime.now(datetime.UTC):%Y-%m-%d})"
    write("CHANGELOG.md", changelog[: section.start()] + dated + changelog[section.end() :])
    for name, (before, after) in PLACES.items():
        head, mark, tail = (ROOT / name).read_text(encoding="utf-8").partition(before)
        write(name, head + mark + version + tail[tail.index(after) :])
    git("commit", "--quiet", "--all", "--allow-empty", "--message", f"Release {version}")
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")


def remember(version: str) -> None:
    """Have the tests of updates begin at this release too, also in a clone that has neither tags nor history."""
    releases = json.loads((ROOT / RELEASES).read_text(encoding="utf-8"))
    for known in releases:  # what the new bundle need not hold; only a bundle leads to it
        git("fetch", "--quiet", "--no-tags", f"{HISTORY}/{known}.bundle", "*:refs/bundled/*")
    before = releases[max(releases, key=numbers)]
    releases[version] = leave_bundles_out(version, before)
    git("update-ref", f"refs/bundled/v{version}", releases[version])
    git("bundle", "create", "--quiet", f"{HISTORY}/{version}.bundle", f"refs/bundled/v{version}", f"^{before}")
    for ref in git("for-each-ref", "--format=%(refname)", "refs/bundled").split():
        git("update-ref", "-d", ref)
    write(RELEASES, json.dumps(releases, indent=2) + "\n")
    git("add", HISTORY, RELEASES)
    git("commit", "--quiet", "--message", f"Updates are tested from {version} on")


def leave_bundles_out(version: str, parent: str) -> str:
    """A commit with the files of a release, less the bundles of those before: each would hold all others once more."""
    with tempfile.TemporaryDirectory() as scratch:
        index = f"{scratch}/index"
        git("read-tree", f"v{version}", index=index)
        git("rm", "-r", "--cached", "--quiet", HISTORY, index=index)
        return git("commit-tree", git("write-tree", index=index), "-p", parent, "-m", f"Release {version}")


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def bump(version: str) -> str:
    major, minor, _ = numbers(version)
    return f"{major}.{minor + 1}.0"


def write(name: str, text: str) -> None:
    (ROOT / name).write_text(text, encoding="utf-8")


def git(*arguments: str, index: str | None = None) -> str:
    environ = {**os.environ, "GIT_INDEX_FILE": index} if index else None
    done = subprocess.run(["git", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        refuse(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def refuse(line: str) -> NoReturn:
    sys.exit(line)


if __name__ == "__main__":
    main(sys.argv[1:])
