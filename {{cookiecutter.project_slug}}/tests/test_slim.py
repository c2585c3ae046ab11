"""What the image leaves out of its environment, tried on a copy of a package that was compiled."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import slim


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A folder with the package markupsafe, of which a part is a compiled library, and with what wheels bring along."""
    spec = importlib.util.find_spec("markupsafe")
    assert spec is not None
    assert spec.origin is not None
    package = tmp_path / "markupsafe"
    shutil.copytree(Path(spec.origin).parent, package)
    for path in ("tests/test_it.py", "tests/tests/test_it.py", "testing.py", "_speedups.c", "_speedups.pyi"):
        (package / path).parent.mkdir(exist_ok=True)
        (package / path).touch()
    for library in package.glob("*.so"):
        with library.open("ab") as file:
            file.write(bytes(100_000))  # as symbols do, this stands behind all that is loaded
    return tmp_path


def test_tests_and_sources_go_and_modules_stay(environment: Path) -> None:
    slim.main(environment)
    package = environment / "markupsafe"
    assert not (package / "tests").exists()
    assert not (package / "_speedups.c").exists()
    assert (package / "testing.py").exists()
    assert (package / "__init__.py").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="libraries of another format are left as they are")
def test_a_library_is_smaller_and_still_works(environment: Path) -> None:
    (library,) = (environment / "markupsafe").glob("*.so")
    before = library.stat().st_size
    slim.main(environment)
    assert library.stat().st_size <= before - 100_000
    ask = "import markupsafe._speedups as s; print(s.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=environment,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "."},
    )
    assert Path(done.stdout.strip()).resolve() == library
    slim.main(environment)  # again changes nothing


def test_what_is_no_library_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "script.so").write_text("INPUT(libm.so.6)")
    slim.main(tmp_path)
    assert (tmp_path / "script.so").read_text() == "INPUT(libm.so.6)"
