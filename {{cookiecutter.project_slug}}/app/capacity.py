"""How much: the one place that turns CPUs and memory into workers, threads, pools and seconds.

Standard library only, so that `scripts/make_env.py` can load it by its path before anything is installed.

Workers
    gthread: CPUs + 1. One interpreter lock runs one CPU's worth of Python, so a worker a CPU does the work, and
    the spare one serves while another is recycled, starts or is stuck. The well-known (2 x CPUs) + 1 is meant
    for workers that take one request at a time; with threads it bought no throughput and a third more memory.
    sync: (2 x CPUs) + 1 (https://docs.gunicorn.org/en/stable/design.html#how-many-workers).
    Either is lowered to what fits into memory, and is never under 1.
Threads
    4 a gthread worker: enough to wait for a database in, few enough that its connection pool stays small.
Pool
    One database connection a thread: a thread uses one at a time, and more would sit idle.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

# Seconds. Their order is the contract: no step of a stop is cut short by the one around it.
REQUEST_TIMEOUT = 30.0  # a worker with every thread in a request longer than this is replaced
GRACEFUL_TIMEOUT = 30.0  # how long a stop waits for requests in flight
KEEPALIVE = 75.0  # an idle connection outlasts its proxy's (60 s), which then never reuses one just closed
DRAIN = 0.5  # a stopping server goes on taking connections: who sends them does not know of the stop yet
SETTLE = 0.25  # after that, connections half made come through while new ones are turned away
FIRST_BYTES = 10.0  # the kernel keeps a connection to itself until its first bytes have come, this long at most

# Requests before a worker is replaced, to contain slow leaks. The usual 1,000 would be a restart every few
# seconds at a few hundred requests a second.
MAX_REQUESTS = 10_000

# Resident megabytes of the default service, each page counted once, as benchmarks/memory.py of the template measures
# them: 72 for the master and the metrics listener, and 17 for a worker after 4,000 requests. (A worker's RSS is 58:
# that counts the code which the master loaded and all workers share.) Measure again when the service has grown.
BASE_MB = 90  # and a quarter more
WORKER_MB = 40  # and as much again: in a reload old workers and new ones are there together

THREADS = {"gthread": 4, "sync": 1}


@dataclass(frozen=True)
class Limits:
    """What one instance has.

    Attributes:
        cpus: CPUs, fractional.
        memory_mb: megabytes of 2**20 bytes.
        source: where the two numbers come from, for the log.
    """

    cpus: float
    memory_mb: int
    source: str


@dataclass(frozen=True)
class Plan:
    """What a server starts with: counts, and the sentence that explains them."""

    workers: int
    threads: int
    pool_size: int
    reason: str


def load_answers() -> dict[str, str]:
    """The answers that this service was rendered with (`service.json`)."""
    answers: dict[str, str] = json.loads(Path(__file__).with_name("service.json").read_text(encoding="utf-8"))
    return answers


def plan(
    limits: Limits,
    worker_class: str,
    *,
    workers: int | None = None,
    threads: int | None = None,
    ceiling: int | None = None,
) -> Plan:
    """Turn limits into counts, by the rules at the top of this file.

    Args:
        limits: what this instance has.
        worker_class: a key of `THREADS`.
        workers: the number of workers if the environment sets it; taken as it is.
        threads: threads a worker if the environment sets them; a sync worker has one whatever is set.
        ceiling: the most workers, from `.env`.
    """
    threads = (threads or THREADS[worker_class]) if THREADS[worker_class] > 1 else 1
    if workers:
        return Plan(workers, threads, threads, "the environment sets the number of workers")
    whole_cpus = math.ceil(limits.cpus)
    wanted = 2 * whole_cpus + 1 if worker_class == "sync" else whole_cpus + 1
    fitting = max(1, (limits.memory_mb - BASE_MB) // WORKER_MB)
    chosen = min(wanted, fitting, ceiling or wanted)
    reason = f"{limits.cpus:g} CPU and {limits.memory_mb} MB ({limits.source})"
    if chosen < wanted:
        reason += f"; {chosen} of {wanted}: " + ("memory holds no more" if chosen == fitting else ".env allows no more")
    return Plan(chosen, threads, threads, reason)


def find_limits(root: Path = Path("/")) -> Limits:
    """What this process really has: its cgroup's limits, else the answers, and never more than the machine.

    `os.cpu_count()` knows no quota: on a large node it would start hundreds of workers in a 1-CPU container.

    Args:
        root: where `proc` and `sys` are looked for.
    """
    answers = load_answers()
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quotas, memories = _cgroup_limits(root)
    return Limits(
        cpus=min([allowed, *(quotas or [float(answers["cpus"])])]),
        memory_mb=min(memories or [int(answers["memory_mb"])]),
        source=f"CPU by {'cgroup' if quotas else 'answer'}, memory by {'cgroup' if memories else 'answer'}",
    )


def _cgroup_limits(root: Path) -> tuple[list[float], list[int]]:
    """CPU quotas and memory limits (MB) of this process's own cgroup and all above it, in versions 1 and 2."""
    quotas: list[float] = []
    memories: list[int] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / "sys/fs/cgroup" / _mount(root, controllers)
        here = base / path.lstrip("/")
        for folder in [here, *here.parents]:
            if not controllers:
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                memory = _read(folder / "memory.max")
            else:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                memory = _read(folder / "memory.limit_in_bytes")
            if quota.isdigit() and period.isdigit() and int(quota) and int(period):
                quotas.append(int(quota) / int(period))
            if memory.isdigit() and int(memory) < 2**60:  # version 1 writes "no limit" as nearly 2**63
                memories.append(int(memory) // 2**20)
            if folder == base:
                break
    return quotas, memories


def _mount(root: Path, controllers: str) -> str:
    """The folder a hierarchy is mounted at: `cpu,cpuacct` stands there whole or under one of its names."""
    hierarchies = [controllers, *controllers.split(",")]
    return next((name for name in hierarchies if (root / "sys/fs/cgroup" / name).is_dir()), controllers)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
