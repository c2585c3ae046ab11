"""Where metrics live while several processes count: a folder a server start, a file a worker slot.

The Prometheus client keeps a file for every process id it ever saw. Here a worker takes the lowest free slot and
goes on counting in that slot's file, so that the folder stays as large as the most workers that ran at once. A
slot is held by a lock on a file, which ends with the process however that ends.

`open_folder` must run before the first metric is made, that is before `app.observability.metrics` is imported.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where the Prometheus client looks for the folder
PREFIX = "metrics-"
LOCK = "server.lock"

_slot = "server"  # metrics are made in the master, which counts nothing
_held: list[IO[bytes]] = []  # open, and so locked, as long as this process lives


def open_folder(base: str | None) -> Path:
    """Make this start's folder and let metrics be kept in it; folders whose server is gone are removed.

    Args:
        base: the folder to make it in; None for the system's temporary one.
    """
    from prometheus_client import values

    parent = Path(base or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), lock.open("rb") as left_over:
            if _locked(left_over):
                shutil.rmtree(lock.parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    file = (folder / "new").open("wb")
    _locked(file)
    _held.append(file)
    (folder / "new").rename(folder / LOCK)  # only now can another start see it, and it is locked
    os.environ[VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: _slot)  # type: ignore[no-untyped-call]
    return folder


def is_open() -> bool:
    """Whether this process belongs to a server start that made its folder."""
    return bool(_held)


def take_slot() -> None:
    """Count in a slot of its own from now on; a worker calls this once, after the fork."""
    global _slot
    folder = Path(os.environ[VARIABLE])
    with _choosing(folder):
        for number in count():
            file = (folder / f"{number}.slot").open("wb")
            if _locked(file):
                break
            file.close()
        _held.append(file)
        _forget_gauges(folder, number)
        _slot = str(number)


def sweep() -> None:
    """Forget the gauges of workers that have died: what they had in flight is gone."""
    folder = Path(os.environ[VARIABLE])
    with _choosing(folder):
        for path in folder.glob("*.slot"):
            with path.open("rb") as file:
                if _locked(file):
                    _forget_gauges(folder, int(path.stem))


@contextmanager
def _choosing(folder: Path) -> Iterator[None]:
    """One process at a time: a sweep must not hold a slot's lock while a worker looks for a free one."""
    with (folder / "choosing.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _locked(file: IO[bytes]) -> bool:
    """Lock the file if nobody holds it; closing it lets go."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_gauges(folder: Path, slot: int) -> None:
    for path in folder.glob(f"gauge_live*_{slot}.db"):
        path.unlink()
