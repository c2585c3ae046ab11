"""Stops under load, with the door of app/server/hooks.py and without it: what becomes of each request.

Half of eight clients open a connection a request, the others keep theirs. They begin before a stop and end after it.
What was found decided the design: docs/decisions/gunicorn-workers.md.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import BUILD, Row, median, server, service_folder
from support.load import Load

STOPS, REQUESTS, PAUSE = 12, 1500, 0.003  # seconds a client rests between its requests
NO_DOOR = "\n\ndef shut_door(listener: socket.socket) -> None:\n    pass\n"


def measure() -> list[Row]:
    doorless = copy_without_door()
    rows = []
    for kind in ("gthread", "sync", "gevent", "asgi"):
        rounds = [(stop(kind, service_folder()), stop(kind, doorless)) for _ in range(STOPS)]
        shut, left_open = zip(*rounds, strict=True)
        kept = all(outcomes["lost"] == 0 for _, outcomes in shut)
        rows.append(
            Row(
                f"{kind}, {STOPS} stops under load",
                tell(shut),
                f"without the door {tell(left_open)}",
                promise=f"none lost: {'kept' if kept else 'BROKEN'}",
            )
        )
    return rows


def copy_without_door() -> Path:
    folder = BUILD / "doorless"
    shutil.copytree(service_folder(), folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    with (folder / "app" / "server" / "hooks.py").open("a", encoding="utf-8") as hooks:
        hooks.write(NO_DOOR)
    return folder


def stop(kind: str, folder: Path) -> tuple[float, Counter[str]]:
    """The seconds that one stop took, and the outcomes of the requests around it."""
    with server(kind, 2, folder) as service:
        load = Load(service.port, total=REQUESTS, pause=PAUSE).start()
        load.wait_for_answers(100)
        began = time.monotonic()
        assert service.stop(40) == 0
        return time.monotonic() - began, load.wait().outcomes


def tell(stops: tuple[tuple[float, Counter[str]], ...]) -> str:
    counts = [f"{sum(outcomes[name] for _, outcomes in stops):,} {name}" for name in ("lost", "answered", "refused")]
    return f"{', '.join(counts)}; a stop took {median(seconds for seconds, _ in stops):.1f} s"
