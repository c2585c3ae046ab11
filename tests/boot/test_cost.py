"""What a request costs, counted in instructions: the same on every day, whatever else the machine does.

The smallest request of the default service is held against bare Flask in the same Python, so that a newer interpreter
or library changes both. `cost.json` holds the ratio of the last change that meant to alter it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.packages import find
from support.service import SECRET_KEY, clean_environ
from support.template import ROOT, Render

RECORD = Path(__file__).with_name("cost.json")
REQUESTS = 200
GROWTH = 1.05  # of the recorded ratio: more is a failure


@pytest.fixture(scope="module")
def measure(render: Render, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], float]:
    """Instructions a request, as a multiple of bare Flask's: of the `service`, or of one with a seeded `defect`."""
    folder = tmp_path_factory.mktemp("cost") / "service"
    shutil.copytree(render(), folder)
    (folder / "app" / "hello").mkdir()
    shutil.copy(ROOT / "benchmarks" / "apps" / "hello_routes.py", folder / "app" / "hello" / "routes.py")
    count = partial(count_instructions, folder, venv)
    base = count("bare", 0)
    bare = count("bare", REQUESTS) - base
    return lambda what: (count(what, REQUESTS) - base) / bare


def count_instructions(folder: Path, venv: Path, what: str, requests: int) -> int:
    """What the whole process executed, by valgrind."""
    script = ROOT / "benchmarks" / "apps" / "instructions.py"
    command = [
        str(find("valgrind", "valgrind")),
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
    ]
    environ = clean_environ(
        APP_ENV="testing",
        SECRET_KEY=SECRET_KEY,
        PYTHONPATH=str(folder),
        PYTHONHASHSEED="0",
        PROMETHEUS_MULTIPROC_DIR=str(folder.parent),
    )
    arguments = [str(venv / "bin" / "python"), str(script), what, str(requests)]
    done = subprocess.run([*command, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    assert done.returncode == 0, done.stderr
    assert found, done.stderr
    return int(found[1].replace(",", ""))


def grown(ratio: float) -> bool:
    recorded: float = json.loads(RECORD.read_text())["ratio to bare Flask"]
    return ratio > recorded * GROWTH


@pytest.mark.default_class
def test_the_default_request_takes_no_more_instructions_than_before(measure: Callable[[str], float]) -> None:
    ratio = measure("service")
    assert not grown(ratio), f"It is {ratio:.3f}. If it was meant, write that into {RECORD.relative_to(ROOT)}."


@pytest.mark.with_all
@pytest.mark.default_class
def test_a_line_that_costs_every_request_is_noticed(measure: Callable[[str], float]) -> None:
    assert grown(measure("defect"))
