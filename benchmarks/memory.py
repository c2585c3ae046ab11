"""Resident memory, by the number of workers: what `BASE_MB` and `WORKER_MB` of app/capacity.py are set from.

PSS counts a page that several processes share in equal parts with each of them, so its sum over all processes of a
start is what that start really takes. Workers share much of the master's memory, since the code is loaded before
they are forked: a worker's RSS counts all of that again. The sum grows with the number of workers on a line whose
slope is a worker, and which begins at what the master and the metrics listener take.
"""

from __future__ import annotations

from pathlib import Path
from statistics import linear_regression

from benchmarks.common import Row, promise, server
from benchmarks.traffic import request, send
from support.template import SERVICE, load

COUNTS, REQUESTS = (1, 2, 4), 4000  # a worker has had its first full garbage collection by then
CAPACITY = load(SERVICE / "app" / "capacity.py")
LIST = request(
    "GET", "/api/items", b"", "Connection: close"
)  # on a new connection each, or one worker might get most of them


def measure() -> list[Row]:
    rows = []
    for kind in ("gthread", "sync", "gevent", "asgi"):
        totals, resident = [], []
        for count in COUNTS:
            with server(kind, count) as service:
                send(service.port, LIST, REQUESTS * count)
                totals.append(sum(megabytes(pid, "Pss") for pid in service.session()))
                resident += [megabytes(pid, "Rss") for pid in service.workers()]
        worker, base = linear_regression(COUNTS, totals)
        sums = ", ".join(f"{total:.0f}" for total in totals)
        rows += [
            Row(
                f"{kind}: master and metrics listener", f"{base:.0f} MB", promise=promise(base, CAPACITY.BASE_MB, "MB")
            ),
            Row(
                f"{kind}: a worker after {REQUESTS:,} requests",
                f"{worker:.0f} MB",
                f"its RSS, with what it shares: {max(resident):.0f} MB",
                promise=promise(worker, CAPACITY.WORKER_MB, "MB"),
            ),
            Row(f"{kind}: all processes, with {COUNTS[0]}, {COUNTS[1]} and {COUNTS[2]} workers", f"{sums} MB"),
        ]
    return rows


def megabytes(pid: int, name: str) -> float:
    """PSS or RSS of a process, in units of 2**20 bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(name)
