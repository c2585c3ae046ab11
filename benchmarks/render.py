"""The wall time of the default render by the real command, beside that of importing cookiecutter alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import BIN, ROOT, Row, median, promise
from support.service import clean_environ

ROUNDS, BOUND = 9, 1.0  # seconds


def measure() -> list[Row]:
    rounds = []
    for _ in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as home:
            whole = run(home, BIN / "cookiecutter", "--no-input", ROOT)
            rounds.append((whole, run(home, sys.executable, "-c", "import cookiecutter.main")))
    whole, bare = (median(seconds) for seconds in zip(*rounds[1:], strict=True))  # the first warms the disk's cache
    return [
        Row(
            "`cookiecutter --no-input`, the whole command",
            f"{whole:.2f} s",
            f"`import cookiecutter.main` {bare:.2f} s",
            f"{whole / bare:.2f}",
            promise(whole, BOUND, "s"),
        )
    ]


def run(home: str, *command: str | Path) -> float:
    """Seconds of a command, in a folder and with a home that hold nothing else."""
    began = time.perf_counter()
    subprocess.run(command, cwd=home, env=clean_environ(HOME=home), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
