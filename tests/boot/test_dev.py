"""`make dev`: what is edited is served, and an edit that does not load ends nothing for good."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot.conftest import Start
from support.service import Service, wait_for

VIEW = '\n\n@blueprint.get("/edited")\ndef edited() -> str:\n    return "%s"\n'


class Dev(Service):
    """A service as `make dev` starts it."""

    def start(self) -> None:
        with self.output.open("ab") as output, self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [self.venv / "bin" / "python", "scripts/dev.py"],
                cwd=self.folder,
                env=self.all_environ,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def body(self, path: str) -> str:
        """What a path answers; nothing while nobody does."""
        with contextlib.suppress(OSError):
            return self.get(path).body.decode()
        return ""


@pytest.fixture
def dev(folder: Path, venv: Path, tmp_path: Path) -> Iterator[Dev]:
    copy = shutil.copytree(folder, tmp_path / "service")
    (copy / ".env").write_text("")
    shutil.copy(folder.parent / "app.db", tmp_path)
    with Dev(copy, venv, tmp_path) as dev:
        assert isinstance(dev, Dev)
        yield dev


def edit(dev: Dev, file: str, old: str, new: str) -> None:
    path = dev.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_edit_is_served_and_one_that_does_not_load_ends_nothing(dev: Dev) -> None:
    routes = dev.folder / "app" / "pages" / "routes.py"
    whole = routes.read_text()
    routes.write_text(whole + VIEW % "once")
    wait_for(lambda: dev.body("/edited") == "once", "the edited view")

    routes.write_text(whole + "\ndef half(:\n")
    wait_for(lambda: "SyntaxError" in dev.errors.read_text(), "what is wrong is told")
    wait_for(lambda: "the next edit starts it again" in dev.output.read_text(), "it waits")

    routes.write_text(whole + VIEW % "and again")
    wait_for(lambda: dev.body("/edited") == "and again", "the mended view")

    edit(dev, "app/templates/index.html", "<body>", "<body><p>A new paragraph.</p>")
    wait_for(lambda: "A new paragraph." in dev.body("/"), "the edited template")


@pytest.mark.default_class
def test_it_ends_with_all_that_it_started(dev: Dev) -> None:
    assert dev.stop() == 0
    wait_for(lambda: dev.session() == [], "no process is left")


@pytest.mark.default_class
def test_an_edit_under_make_run_is_not_served(start: Start) -> None:
    """So the tests above would fail if nothing were started anew."""
    service = start()
    edited = service.folder / "app" / "pages" / "routes.py"
    before = edited.read_text()
    try:
        edited.write_text(before + VIEW % "once")
        assert service.get("/edited").status == 404
    finally:
        edited.write_text(before)


@pytest.mark.default_class
def test_make_has_it(folder: Path) -> None:
    command = ["make", "--no-print-directory", "--dry-run", "dev"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "exec .venv/bin/python scripts/dev.py"
