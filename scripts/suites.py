"""Run test suites and print how long each took: `python scripts/suites.py unit render`, one after the other.

`deploy+render,data` runs the first at the same time as the other two, and shows all when they are done. Options go to pytest: `--all boot` has every worker class pass every test of it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
# Rendering is work for every core. Servers wait most of the time: two files of tests at once leave each a core, and those
# of `data`, which measure least, go by three. In the order of their names, long files are not last.
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


def run(suites: list[str], options: list[str], output: IO[str] | None) -> list[str]:
    """Their lines of the summary."""
    lines = []
    for suite in suites:
        print(f"== {suite}", file=output, flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", f"tests/{suite}", *OPTIONS[suite], "--durations=8", *options]
        failed = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode != 0
        lines.append(f"{suite:8} {'FAILED' if failed else 'passed'} in {time.monotonic() - began:.0f} s")
    return lines


def main(arguments: list[str]) -> int:
    """Run every suite, also after one that fails; 1 if any did."""
    options = [argument for argument in arguments if argument.startswith("-")]
    lines: list[str] = []
    for group in (argument for argument in arguments if argument not in options):
        lanes = [lane.split(",") for lane in group.split("+")]
        if len(lanes) == 1:
            lines += run(lanes[0], options, None)
            continue
        with ExitStack() as files, ThreadPoolExecutor() as pool:
            outputs = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in lanes]
            running = [pool.submit(run, lane, options, file) for lane, file in zip(lanes, outputs, strict=True)]
            for file, lane in zip(outputs, running, strict=True):
                lines += lane.result()
                file.seek(0)
                print(file.read(), flush=True)
    print("== suites", *lines, sep="\n")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
