"""Programs from Debian's packages that tests run for real."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

# A package's service must not be started by its installation: tests start their own, on ports of their own.
NO_SERVICES = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}


def find(pattern: str, package: str) -> Path:
    """The program at `pattern` (a name on the PATH, or a path with wildcards), installed where it is missing.

    Raises:
        AssertionError: it is missing and cannot be installed; it says with which command it can.
    """
    for attempt in range(3):
        found = shutil.which(pattern) or next(iter(sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)), None)
        if found:
            return Path(found)
        if os.geteuid() == 0 and attempt < 2:
            for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
                subprocess.run(["apt-get", "-qq", *command], env={**os.environ, **NO_SERVICES}, check=False)
    raise AssertionError(f"{pattern} is missing. Install it: apt-get install {package}")
