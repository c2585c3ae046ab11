"""A machine unlike this one: with its folder on `PYTHONPATH`, Python starts there.

It has `ANOTHER_CPUS` CPUs, its clock is a year ahead, and whoever reaches for the network or starts a program other
than this Python is stopped, and told on in the file `ANOTHER_LOG`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

CPUS = int(os.environ["ANOTHER_CPUS"])
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")

real_time = time.time


def watch(event: str, details: tuple[Any, ...]) -> None:
    """An audit hook: sees what goes on, whatever name it was called by."""
    if event not in FORBIDDEN or (event == "subprocess.Popen" and details[0] == sys.executable):
        return
    with open(os.environ["ANOTHER_LOG"], "a") as log:  # noqa: PTH123  pathlib takes time to import
        log.write(f"{event} {details}\n")
    raise PermissionError(f"{event} {details}")


os.cpu_count = lambda: CPUS
os.sched_getaffinity = lambda pid: set(range(CPUS))
time.time = lambda: real_time() + 365 * 24 * 3600
sys.addaudithook(watch)
