"""Run test suites one after the other and print how long each took: `python scripts/suites.py unit render`.

Options go to pytest: `--all boot` has every worker class pass every test of it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Rendering is work for every core. Servers wait most of the time: two tests at once leave each a core, and a third one
# would only make all of them slower. A worker that is done takes tests of the other's, else most tests of a file stay
# together, and what its fixtures made is used again.
RENDERS = ["-n", "auto"]
SERVES = ["-n", "2", "--dist", "worksteal"]
OPTIONS = {
    "unit": RENDERS,
    "render": RENDERS,
    "update": RENDERS,
    "data": SERVES,
    "boot": SERVES,
    "deploy": [],
    "kubernetes": [],
}


def main(arguments: list[str]) -> int:
    """Run every suite, also after one that fails; 1 if any did."""
    options = [argument for argument in arguments if argument.startswith("-")]
    lines = []
    for suite in (argument for argument in arguments if argument not in options):
        print(f"== {suite}", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", "pytest", f"tests/{suite}", *OPTIONS[suite], "--durations=8", *options]
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode != 0
        lines.append(f"{suite:10} {'FAILED' if failed else 'passed'} in {time.monotonic() - began:.0f} s")
    print("== suites", *lines, sep="\n")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
