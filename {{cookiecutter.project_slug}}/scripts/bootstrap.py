"""Install what the lock file says into `.venv`: `python3 scripts/bootstrap.py [options of uv sync]`.

Standard library only. It uses the `uv` on the PATH, or else installs one for this project into `.uv`. It works on
the project in the current folder, with the Python that runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

UV = "uv>=0.9,<1"
OLDEST, NEWEST = (3, 11), (3, 14)


def main(options: list[str]) -> None:
    """Make `.venv` agree with `uv.lock`.

    Raises:
        SystemExit: with one line that says what is missing on this machine and how to get it.
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        have = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Python 3.11 to 3.14 is needed and this is {have}. Name another: make PYTHON=python3.12")
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": ".venv"}
    environ.pop("VIRTUAL_ENV", None)  # another project's environment may be active
    python = getattr(sys, "_base_executable", sys.executable)
    command = [find_uv(), "sync", "--quiet", "--locked", "--compile-bytecode", "--python", python, *options]
    if subprocess.run(command, env=environ, check=False).returncode:
        sys.exit("The dependencies could not be installed; the lines above say why. Then again: make install")


def find_uv() -> str:
    """The path of a `uv`, installed for this project where the machine has none."""
    own = Path(".uv/bin/uv").absolute()
    found = shutil.which("uv") or (str(own) if own.exists() else None)
    if found:
        return found
    try:
        subprocess.run([sys.executable, "-m", "venv", ".uv"], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(".uv", ignore_errors=True)  # half of an environment would be taken for a whole one
        sys.exit("Python's venv module is missing. Install it: apt install python3-venv (or install uv itself)")
    subprocess.run([".uv/bin/python", "-m", "pip", "install", "--quiet", UV], check=False)
    if not own.exists():
        sys.exit("uv could not be installed from the package index; the lines above say why. Then again: make install")
    return str(own)


if __name__ == "__main__":
    main(sys.argv[1:])
