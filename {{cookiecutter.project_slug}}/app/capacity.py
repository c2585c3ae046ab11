"""How much: the one place that turns CPUs and memory into workers, threads, pools and seconds.

`python -m app.capacity` prints what follows for this machine; `--help` says how to ask about another. Standard
library only, and nothing of the package: `scripts/make_env.py` loads this file by its path before anything is
installed.

Workers
    CPUs + 1. One interpreter lock runs one CPU's worth of Python, so a worker a CPU does the work, and the spare
    one serves while another is recycled, starts or is stuck. The well-known (2 x CPUs) + 1 is meant for workers
    that take one request at a time; with threads it bought no throughput and a third more memory.
    sync: (2 x CPUs) + 1 (https://docs.gunicorn.org/en/stable/design.html#how-many-workers).
    Either is lowered to what fits into memory, and is never under 1.
Threads: how many requests a worker has in hand at a time
    4 of gthread and asgi: enough to wait for a database in, few enough that its connection pool stays small.
    40 of gevent, whose threads are greenlets: all 40 in use cost a megabyte, and are for waiting for others than the
    database.
Pool
    One database connection a thread: a thread uses one at a time, and more would sit idle. One for ten greenlets,
    but no fewer than 4: the others wait for one, since a database accepts no more because clients are cheap. When 120
    clients at once read pages of items from one worker, none waited for its connection in vain (for 5 s); of 36
    statements of 2 s at once, 4 at a time, two thirds did.
Connections
    (replicas + 1) x workers x pool + 1: a rolling update runs one replica more, a migration has one of its own.
    They must fit into what the database accepts, for PostgreSQL `max_connections` (100) less
    `superuser_reserved_connections` (3); a pooler in front accepts more than it opens
    (https://www.pgbouncer.org/config.html#max_client_conn): as many as that, or nine tenths of what a PostgreSQL as it
    is installed leaves to us, for migrations, people and monitoring go past it.
Memory
    base + workers x worker, in resident megabytes with the default service, by benchmarks/memory.py of the template.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

# Requests before a worker is replaced, to contain slow leaks. The usual 1,000 would be a restart every few
# seconds at a few hundred requests a second.
MAX_REQUESTS = 10_000

# Resident megabytes of the default service, each page counted once, as benchmarks/memory.py of the template measures
# them: 78 to 82 for the master and the metrics listener, 17 to 22 for a worker after 4,000 requests. (Its RSS is 60:
# that counts the code which the master loaded and all workers share.) Measure again when the service has grown.
BASE_MB = 90  # and a tenth more
WORKER_MB = 40  # and as much again: in a reload old workers and new ones are there together
MAX_CONNECTIONS = 97  # what a PostgreSQL as it is installed leaves to us

THREADS = {"gthread": 4, "sync": 1, "gevent": 40, "asgi": 4}

# Every number of seconds that one part of a deployment must know of another. RUNGS says what must be under what.
SECONDS = {
    "first_bytes": 10.0,  # the kernel keeps a new connection to itself until it says something
    "statement": 20.0,  # the database gives up on a statement
    "request": 25.0,  # a worker with every thread in one request for longer is replaced
    "proxy": 30.0,  # the proxy in front gives up waiting for an answer
    "drain": 0.5,  # a stopping server goes on taking connections: who sends them does not know of the stop yet
    "settle": 0.25,  # after that, connections half made come through while new ones are turned away
    "flush": 2.0,  # a worker that ends sends the last errors and traces, at most
    "graceful": 30.0,  # a stop waits for requests in flight
    "pre_stop": 10.0,  # an orchestrator waits until nobody is sent to an instance, before it stops it
    "grace": 45.0,  # an orchestrator waits for the whole stop, then kills
    "balancer_idle": 60.0,  # a load balancer keeps an idle connection to the proxy
    "proxy_idle": 75.0,  # the proxy keeps an idle connection of its clients
    "upstream_idle": 60.0,  # the proxy keeps an idle connection to us
    "keepalive": 75.0,  # we keep an idle connection of the proxy
}

# The sum of the first names must be under the second one, or else what the sentence says happens.
RUNGS = (
    (("statement",), "request", "a worker is replaced while its statement still holds locks"),
    (("request",), "proxy", "clients get 504 for requests that are still worked on"),
    (("request", "flush"), "graceful", "a stop cuts off requests that may take longer, or their last traces"),
    (("drain", "settle"), "graceful", "a stop ends before the last connections are taken"),
    (("pre_stop", "graceful"), "grace", "the orchestrator kills a stop that is not over"),
    (("balancer_idle",), "proxy_idle", "the load balancer reuses a connection just closed: 502"),
    (("upstream_idle",), "keepalive", "the proxy reuses a connection just closed: 502"),
)


def broken_rungs(seconds: Mapping[str, float]) -> list[str]:
    """What is out of order among `seconds` (names as in `SECONDS`), a sentence each; names may be missing."""
    found = []
    for lower, upper, otherwise in RUNGS:
        if upper in seconds and all(name in seconds for name in lower):
            total = sum(seconds[name] for name in lower)
            if total >= seconds[upper]:
                found.append(
                    f"{' + '.join(lower)} ({total:g} s) is not under {upper} ({seconds[upper]:g} s): {otherwise}"
                )
    return found


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
    """What a server starts with, and the sentence that explains it.

    Attributes:
        workers: processes.
        threads: of each worker, or greenlets.
        pool_size: database connections of each worker, at most.
        memory_mb: resident megabytes, about.
        reason: why so many workers.
    """

    workers: int
    threads: int
    pool_size: int
    memory_mb: int
    reason: str

    def connections(self, replicas: int) -> int:
        """Database connections that `replicas` instances open at most, a rolling update and a migration included."""
        return (replicas + 1) * self.workers * self.pool_size + 1

    def pooled(self, replicas: int) -> int:
        """Connections that a pooler opens for them at most."""
        return min(self.connections(replicas), MAX_CONNECTIONS * 9 // 10)


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
    pool_size = max(min(threads, 4), threads // 10) if worker_class == "gevent" else threads
    reason = "the environment sets the number of workers"
    if not workers:
        whole_cpus = math.ceil(limits.cpus)
        wanted = 2 * whole_cpus + 1 if worker_class == "sync" else whole_cpus + 1
        fitting = max(1, (limits.memory_mb - BASE_MB) // WORKER_MB)
        workers = min(wanted, fitting, ceiling or wanted)
        reason = f"{limits.cpus:g} CPU and {limits.memory_mb} MB ({limits.source})"
        if workers < wanted:
            limit = "memory holds" if workers == fitting else ".env allows"
            reason += f"; {workers} of {wanted}: {limit} no more"
    return Plan(workers, threads, pool_size, BASE_MB + workers * WORKER_MB, reason)


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


def card(limits: Limits, worker_class: str, replicas: int, chosen: Plan) -> dict[str, object]:
    """All the numbers of one instance and of `replicas` of them, as JSON."""
    return {
        **asdict(limits),
        "worker_class": worker_class,
        "plan": asdict(chosen),
        "replicas": replicas,
        "connections": chosen.connections(replicas),
        "pooled": chosen.pooled(replicas),
        "max_connections": MAX_CONNECTIONS,
        "seconds": SECONDS,
        "broken_rungs": broken_rungs(SECONDS),
    }


def main() -> None:
    """Print the card of this machine, or of the one that the options describe."""
    answers = load_answers()
    here = find_limits()
    parser = argparse.ArgumentParser(prog="python -m app.capacity", description="How much this service starts with.")
    parser.add_argument("--cpus", type=float, default=here.cpus, help="CPUs of one instance (here: %(default)s)")
    parser.add_argument("--memory-mb", type=int, default=here.memory_mb, help="its megabytes (here: %(default)s)")
    parser.add_argument("--replicas", type=int, default=int(answers["max_replicas"]), help="instances (%(default)s)")
    parser.add_argument("--worker-class", choices=list(THREADS), default=answers["worker_class"])
    parser.add_argument("--json", action="store_true", help="for programs")
    asked = parser.parse_args()
    same = (asked.cpus, asked.memory_mb) == (here.cpus, here.memory_mb)
    limits = here if same else Limits(asked.cpus, asked.memory_mb, "as asked")
    chosen = plan(
        limits,
        asked.worker_class,
        workers=_number("GUNICORN_WORKERS") or _number("WEB_CONCURRENCY"),
        threads=_number("GUNICORN_THREADS"),
    )
    if asked.json:
        print(json.dumps(card(limits, asked.worker_class, asked.replicas, chosen), indent=2))
        return
    connections = chosen.connections(asked.replicas)
    fits = "fit into" if connections <= MAX_CONNECTIONS else "DO NOT FIT into"
    print(f"{chosen.workers} {asked.worker_class} workers of {chosen.threads} threads: {chosen.reason}")
    print(f"about {chosen.memory_mb} of {limits.memory_mb} MB")
    print(f"{chosen.pool_size} database connections a worker; {connections} of {asked.replicas} replicas in a rolling")
    print(f"  update, with a migration, {fits} the {MAX_CONNECTIONS} of a PostgreSQL as it is installed")
    print(
        f"  and {chosen.pooled(asked.replicas)} where a pooler opens them, as its default_pool_size and max_db_connections"
    )
    print("seconds, each line rising:")
    for lower, upper, _ in RUNGS:
        print("  " + " + ".join(f"{name} {SECONDS[name]:g}" for name in lower) + f" < {upper} {SECONDS[upper]:g}")


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else None


if __name__ == "__main__":
    main()
