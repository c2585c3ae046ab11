"""Merge the template's news into this service: `python3 scripts/template_update.py [options] [question=answer]`.

Standard library, git and uv. This file only finds the template and a release of it, and hands over to the updater of
that release: what is wrong in an old service's update can so be mended in a new release. docs/update.md has the steps.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from bootstrap import find_uv

# The same that cookiecutter knows; other abbreviations are the caller's own, and no other program knows them.
HOSTS = {"gh": "https://github.com/{}.git", "gl": "https://gitlab.com/{}.git", "bb": "https://bitbucket.org/{}"}
UPDATER = "updater/main.py"  # in the template
LOCAL = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "VIRTUAL_ENV")  # of a hook, or another project


def main(arguments: list[str]) -> int:
    """0: merged, or nothing is new; 1: conflicts are left, or `--check` found news; 2: refused, nothing is changed."""
    options, _ = read_options(arguments)
    for name in LOCAL:
        os.environ.pop(name, None)
    home = Path(git("rev-parse", "--absolute-git-dir", mend="Run it in a git repository: git init"), "template-update")
    lock = hold_lock(Path(git("rev-parse", "--git-common-dir"), "template-update.lock").absolute())
    if (home / "merge.json").exists():  # what the release left for taking its merge back
        taken_back = subprocess.run(
            [sys.executable, "-B", str(home / "stage.py"), *arguments], pass_fds=[lock], check=False
        )
        if options.abort or taken_back.returncode:
            return taken_back.returncode
    elif options.abort:
        refuse("There is no update to take back: git log has those that were committed, git revert undoes one")
    source = expand(options.source or read_source())
    shutil.rmtree(home / "work", ignore_errors=True)
    template = home / "work" / "template"
    mend = f"The template is not at {source}. Name where it is: make template-update ARGS='--source URL'"
    git("clone", "--quiet", "--no-checkout", "--", source, str(template), mend=mend)
    newest = newest_release(template)
    release = options.to or newest
    mend = f"{source} has no release {release}. List them: git ls-remote --tags {source}"
    git("rev-parse", "--quiet", "--verify", f"{release}^{{commit}}", folder=template, mend=mend)
    for updater in (release, newest, "origin/HEAD"):  # the first releases have none of their own
        if not run_git("cat-file", "-e", f"{updater}:{UPDATER}", folder=template).returncode:
            break
    else:
        refuse(f"No release at {source} has {UPDATER}. Name this service's template: ARGS='--source URL'")
    git("checkout", "--quiet", "--detach", updater, folder=template)
    environ = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(home / "venv"), "UV_PYTHON_DOWNLOADS": "never"}
    python = getattr(sys, "_base_executable", sys.executable)
    command = [find_uv(), "sync", "--quiet", "--project", str(template), "--locked", "--no-dev", "--python", python]
    if subprocess.run(command, env=environ, check=False).returncode:
        refuse("What the updater needs could not be installed; uv says why above. Then again: make template-update")
    command = [str(home / "venv" / "bin" / "python"), str(template / UPDATER), f"--release={release}", *arguments]
    done = subprocess.run(command, env=environ, pass_fds=[lock], check=False)
    shutil.rmtree(home / "work", ignore_errors=True)
    return done.returncode


def read_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options that this file needs; what a newer release knows beside them goes to its updater."""
    parser = argparse.ArgumentParser(description="Merge the template's news into this service.", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="say what is new, and exit with 1 if something is")
    parser.add_argument("--diff", action="store_true", help="show what an update would change, and change nothing")
    parser.add_argument("--to", metavar="TAG", help="the release to update to; else the newest one")
    parser.add_argument("--source", metavar="URL", help="where the template is now, if it moved")
    parser.add_argument("--abort", action="store_true", help="take back an update that is not committed yet")
    parser.add_argument("answers", nargs="*", metavar="question=answer", help="an answer to change")
    return parser.parse_known_args(arguments)


def hold_lock(path: Path) -> int:
    """A file lock, held until the last process that inherits it ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("Waiting for another update of this service to end", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def read_source() -> str:
    """Where the template is, as `.template.json` in the last commit has it."""
    text = git(
        "show", "HEAD:./.template.json", mend="Commit the service first, .template.json too: git add . && git commit"
    )
    try:
        return str(json.loads(text)["source"])
    except (ValueError, KeyError, TypeError):
        changed = git("rev-list", "-1", "--abbrev-commit", "HEAD", "--", ".template.json")
        refuse(f".template.json is damaged. Put it back: git checkout {changed}~ -- .template.json && git commit")


def expand(source: str) -> str:
    """`gh:org/name` as an address; a folder as an absolute path."""
    host, _, path = source.partition(":")
    if host in HOSTS:
        return HOSTS[host].format(path.removesuffix(".git"))
    return str(Path(source).expanduser().absolute()) if Path(source).expanduser().exists() else source


def newest_release(template: Path) -> str:
    """The tag of the newest release, or the default branch where there is none."""
    tags = git("tag", "--list", folder=template).split()
    releases = [tag for tag in tags if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]
    return max(releases, key=lambda tag: [int(part) for part in tag[1:].split(".")], default="origin/HEAD")


def git(*arguments: str, folder: Path | None = None, mend: str = "") -> str:
    """What git prints."""
    done = run_git(*arguments, folder=folder)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        refuse(mend + (f" (git says: {said})" if said else ""))
    return done.stdout.strip()


def run_git(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S607


def refuse(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
