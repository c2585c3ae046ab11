"""The last step of an update: files and index change here, and only here; or are put back.

Everything was worked out before and stands in `merge.json`. The step runs in a session of its own, so that `kill -9` of
the command does not reach it; should it be cut short all the same (the machine went down), the next run puts back what
it had changed. Standard library only: a copy of this file stays with the service until the update is committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

PLANNED, HALF_DONE, DONE = "planned", "half done", "done"


def main(arguments: list[str]) -> None:
    """Run before every update, and by `--abort`; and by itself, for the steps."""
    plan = read_plan()
    os.chdir(plan["top"])
    if arguments == ["--apply"]:
        apply(plan)
    elif arguments == ["--put-back"]:
        put_back(plan)
    elif plan["step"] == PLANNED or git("rev-parse", "HEAD").strip() != plan["head"]:  # never begun, or committed
        plan_file().unlink()
        if "--abort" in arguments:
            refuse("There is no update to take back: git log has those that were committed, git revert undoes one")
    elif "--abort" in arguments:
        run_apart("--put-back")
        print("The update was taken back: the service is as it was at the last commit")
    elif plan["step"] == HALF_DONE:
        run_apart("--put-back")
        print("An update that was cut short was taken back", file=sys.stderr)


def plan_file() -> Path:
    return Path(git("rev-parse", "--absolute-git-dir").strip(), "template-update", "merge.json")


def read_plan() -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(plan_file().read_text(encoding="utf-8"))
    return plan


def write_plan(plan: dict[str, Any], step: str) -> None:
    """As a whole, or not at all."""
    aside = plan_file().with_suffix(".new")
    with aside.open("w", encoding="utf-8") as file:
        json.dump({**plan, "step": step}, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(plan_file())


def run_apart(step: str) -> None:
    """Take a step in a session that the terminal and `kill` of this command do not reach, and wait for it."""
    command = [sys.executable, "-B", str(plan_file().with_name("stage.py")), step]
    # The lock on the service is among the open files: it is held until the step has ended.
    done = subprocess.run(
        command,
        start_new_session=True,
        close_fds=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        if plan_file().exists():
            refuse("The update was cut short. Take back what it did: make template-update ARGS=--abort")
        refuse(f"Git could not change the files, and nothing is changed: {done.stderr.strip()}")


def apply(plan: dict[str, Any]) -> None:
    """Bring files and index to the merged tree; what is in conflict stays unmerged in the index, as git leaves it."""
    write_plan(plan, HALF_DONE)
    try:
        change(plan)
    except SystemExit:  # the disk is full, perhaps
        put_back(plan)
        raise
    write_plan(plan, DONE)


def change(plan: dict[str, Any]) -> None:
    git("read-tree", "-m", "-u", plan["head"], plan["merged"])
    entries = [f"0 {'0' * len(plan['head'])}\t{path}" for path in plan["conflicts"]]
    entries += [
        f"{mode} {blob} {stage}\t{path}" for path, stages in plan["conflicts"].items() for mode, blob, stage in stages
    ]
    git("update-index", "-z", "--index-info", given=entries)
    Path(git("rev-parse", "--git-path", "SQUASH_MSG").strip()).write_text(plan["message"], encoding="utf-8")


def put_back(plan: dict[str, Any]) -> None:
    """Bring the paths that the update changed, in files and index, to the last commit; leave all others alone."""
    write_plan(plan, HALF_DONE)
    top, head, paths = Path(plan["top"]), plan["head"], sorted(plan["paths"])
    if plan["step"] == HALF_DONE:  # git died with the machine, and its lock on the index outlived it
        Path(git("rev-parse", "--git-path", "index.lock").strip()).unlink(missing_ok=True)
    known = set(git("ls-tree", "-r", "-z", "--name-only", head).split("\0"))
    for path in paths:
        if path not in known:
            (top / path).unlink(missing_ok=True)
            remove_empty(top, (top / path).parent)
    git("reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul", given=paths)
    git("checkout-index", "--force", "-u", "-z", "--stdin", given=[path for path in paths if path in known])
    Path(git("rev-parse", "--git-path", "SQUASH_MSG").strip()).unlink(missing_ok=True)
    plan_file().unlink()


def remove_empty(top: Path, folder: Path) -> None:
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def git(
    *arguments: str, given: Iterable[str] = (), folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """What git prints when it is given a list on its standard input.

    Raises:
        SystemExit: with git's own words.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        input="".join(f"{line}\0" for line in given).encode(errors="surrogateescape"),
        env={**os.environ, "GIT_LITERAL_PATHSPECS": "1", **(environ or {})},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        refuse(" ".join(done.stderr.decode(errors="replace").split()))
    return done.stdout.decode(errors="surrogateescape")


def refuse(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
