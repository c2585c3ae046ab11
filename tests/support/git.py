"""Git as tests need it: without the settings of whoever runs them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

ENVIRON = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


def git(folder: Path, *arguments: str) -> str:
    """What `git` prints in `folder`."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=ENVIRON, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def listed(folder: Path) -> list[str]:
    """The paths in a part of a repository that are in git or would be after `git add .`."""
    paths = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted({path for path in paths if path and (folder / path).is_file()})


def would_track(folder: Path) -> list[str]:
    """The paths that `git init && git add .` would track; the folder itself is left as it is."""
    with tempfile.TemporaryDirectory() as name:
        git(folder, f"--git-dir={name}", "init", "--quiet")
        arguments = ["ls-files", "-z", "--others", "--exclude-standard"]
        paths = git(folder, f"--git-dir={name}", f"--work-tree={folder}", *arguments)
    return sorted(path for path in paths.split("\0") if path)
