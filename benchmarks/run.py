"""`make bench`: measure what is promised, and print it.

python benchmarks/run.py [NAME ...] [--all] [--write]: a NAME is that of a module beside this one; `--all` adds those
that take minutes; `--write` puts the tables into benchmarks/README.md.
"""

from __future__ import annotations

import platform
import re
import sys
import time
from importlib import import_module
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: it has a requests.py

from benchmarks.common import Row  # noqa: E402

README = Path(__file__).with_name("README.md")
USUAL = ["render", "start", "memory", "requests", "data"]
LONG = ["drain", "openapi", "statement_timeout"]
COLUMNS = ("", "figure", "held against", "ratio", "promise")


def main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if not argument.startswith("--")]
    text = README.read_text(encoding="utf-8")
    broken = False
    for name in names or USUAL + LONG * ("--all" in arguments):
        began = time.monotonic()
        print(f"== {name}", flush=True)
        rows: list[Row] = import_module(f"benchmarks.{name}").measure()
        figures = f"{table(rows)}\n\n`.venv/bin/python benchmarks/run.py {name}`, {machine()}"
        print(f"{figures}, in {time.monotonic() - began:.0f} s\n", flush=True)
        text = re.sub(f"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>\n{figures}.\n\n\g<2>", text, flags=re.S)
        broken = broken or any("BROKEN" in row.promise for row in rows)
    if "--write" in arguments:
        README.write_text(text, encoding="utf-8")
    return int(broken)


def table(rows: list[Row]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [COLUMNS, ["---"] * len(COLUMNS), *rows])


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return (
        f"{time.strftime('%Y-%m-%d')}: {len(models)} cores of {models[0]}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
