"""Services with a fault put in: what a test finds in the right one, it has to find wrong there."""

from __future__ import annotations

import shutil
from pathlib import Path


def plant(folder: Path, parent: Path, file: str, right: str, wrong: str) -> Path:
    """A copy below `parent` of the rendered service in `folder`, in one file of which `right` was made `wrong`."""
    copy = parent / "defective" / "service"
    shutil.copytree(folder, copy)
    shutil.copy(folder.parent / "app.db", copy.parent)
    text = (copy / file).read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{file} no longer has one {right!r}: put the fault in elsewhere"
    (copy / file).write_text(text.replace(right, wrong), encoding="utf-8")
    return copy
