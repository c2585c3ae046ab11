"""A release of the template with some answers, as a tree in the service's own repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from answers import TEMPLATE, digest
from stage import git, refuse

# The sample may be deleted (README of the service). Whoever did is told nothing of it any more.
SAMPLE = ("app/items/", "tests/test_items.py")
# As the service's files stand in the repository, whatever a machine makes of them in its work tree.
RAW = (
    "-c",
    "core.autocrlf=false",
    "-c",
    "core.safecrlf=false",
    "-c",
    "core.fileMode=true",
    "-c",
    "core.fsmonitor=false",
)


@dataclass(frozen=True)
class Side:
    """One of the two that are rendered."""

    name: str
    commit: str
    answers: Mapping[str, str]


def render_both(work: Path, base: Side, target: Side) -> tuple[Path, Path]:
    """The folders of both, made at the same time."""
    for side in (base, target):
        git("worktree", "add", "--quiet", "--force", "--detach", str(work / side.name), side.commit, folder=TEMPLATE)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda side: render(work, side), (base, target))
    return first, second


def render(work: Path, side: Side) -> Path:
    """Run cookiecutter in a process of its own: the rules of one release are not those of another."""
    output = work / f"{side.name}-rendered"
    config = work / f"{side.name}.json"  # JSON is YAML; nothing of the user's own home is read or written
    home = {name: str(work / f"{side.name}-home" / name) for name in ("cookiecutters_dir", "replay_dir")}
    text = json.dumps({**home, "default_context": dict(side.answers)}, ensure_ascii=False)
    config.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "cookiecutter", "--no-input", "--config-file", str(config)]
    done = subprocess.run(
        [*command, "--output-dir", str(output), str(work / side.name)],
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).partition("\nContext: {")[0]  # then all answers follow, one a line
        refuse(said.strip().rpartition("\n")[2] or "cookiecutter failed")
    (folder,) = output.iterdir()
    return folder


def correct_record(folder: Path, source: str, commit: str) -> dict[str, str]:
    """Have `.template.json` say where the release really came from, and give its answers."""
    path = folder / ".template.json"
    entry = {**json.loads(path.read_text(encoding="utf-8")), "source": source, "commit": commit}
    if entry.pop("digest", None):
        entry["digest"] = digest(entry)
    path.write_text(json.dumps(entry, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    answers: dict[str, str] = entry["answers"]
    return answers


def drop_sample(folders: tuple[Path, Path], own: set[str]) -> bool:
    """Leave the sample out on both sides if the service has nothing of it."""
    if any(path.startswith(SAMPLE) for path in own):
        return False
    for folder in folders:
        for path in SAMPLE:
            shutil.rmtree(folder / path, ignore_errors=True)
            (folder / path).unlink(missing_ok=True)
    return True


def line_ends() -> Callable[[str], bool]:
    """Whether a path of the service has, or a new one should have, CRLF in the repository itself."""
    with_crlf: set[str] = set()
    without: set[str] = set()
    for line in git("ls-files", "--eol", "-z").split("\0"):
        about, _, path = line.partition("\t")
        kept = about.split(" ")[0]
        (with_crlf if kept == "i/crlf" else without if kept == "i/lf" else set()).add(path)
    return lambda path: path in with_crlf or (path not in without and len(with_crlf) > len(without))


def write_tree(folder: Path, wants_crlf: Callable[[str], bool]) -> str:
    """The id of a tree with what git would keep of a folder: no `.env`, no secrets."""
    listed = git(
        "ls-files", "--others", "--exclude-per-directory=.gitignore", "-z", folder=folder, environ=outside(folder)
    )
    paths = [path for path in listed.split("\0") if path]
    for path in filter(wants_crlf, paths):
        content = (folder / path).read_bytes()
        if b"\0" not in content and b"\r\n" not in content:
            (folder / path).write_bytes(content.replace(b"\n", b"\r\n"))
    git(*RAW, "update-index", "--add", "-z", "--stdin", given=paths, folder=folder, environ=outside(folder))
    return git("write-tree", environ=outside(folder)).strip()


def outside(folder: Path) -> dict[str, str]:
    """The service's repository, for a folder that is not its work tree."""
    repository = git("rev-parse", "--absolute-git-dir").strip()
    return {"GIT_DIR": repository, "GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": f"{folder}.index"}
