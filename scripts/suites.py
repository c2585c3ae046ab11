"""Run test suites and print how long each took: `python scripts/suites.py unit render`, one after the other.

`deploy+update` are run at the same time, and shown when they are done. Options go to pytest: `--all boot` has every worker class pass every test of it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Rendering is work for every core. Servers wait most of the time: two files of tests at once leave each a core, and those
# of `data`, which measure least, go by three. In the order of their names, long files are not last. `deploy` waits most of
# all, and beside it others find room.
RENDERS = ["-n", "auto"]
BY_FILE = ["--dist", "loadfile", "--no-loadscope-reorder"]
OPTIONS = {
    "unit": RENDERS,
    "render": RENDERS,
    "update": RENDERS,
    "data": ["-n", "3", *BY_FILE],
    "boot": ["-n", "2", *BY_FILE],
    "deploy": [],
}


def run(suite: str, options: list[str], output: int | None) -> str:
    """The suite's line of the summary."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", f"tests/{suite}", *OPTIONS[suite], "--durations=8", *options]
    failed = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode != 0
    return f"{suite:8} {'FAILED' if failed else 'passed'} in {time.monotonic() - began:.0f} s"


def main(arguments: list[str]) -> int:
    """Run every suite, also after one that fails; 1 if any did."""
    options = [argument for argument in arguments if argument.startswith("-")]
    lines: list[str] = []
    for group in (argument.split("+") for argument in arguments if argument not in options):
        print("==", *group, flush=True)
        if len(group) == 1:
            lines.append(run(group[0], options, None))
            continue
        with ExitStack() as files, ThreadPoolExecutor() as pool:
            outputs = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in group]
            running = [
                pool.submit(run, suite, options, file.fileno()) for suite, file in zip(group, outputs, strict=True)
            ]
            for suite, file, line in zip(group, outputs, running, strict=True):
                lines.append(line.result())
                file.seek(0)
                print(f"== {suite}", file.read(), sep="\n", flush=True)
    print("== suites", *lines, sep="\n")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
