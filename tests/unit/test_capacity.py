"""Capacity: what a process is found to have, and the counts that follow."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

import template_rules
from support.template import SERVICE, Render, imports, load

SOURCE = SERVICE / "app" / "capacity.py"
ANSWERS = {"cpus": "2", "memory_mb": "512"}
GB = str(2**30)
NO_LIMIT = str(2**63 - 4096)  # as cgroup version 1 writes it
V1 = "4:memory:/svc\n3:cpu,cpuacct:/svc\n2:name=systemd:/svc\n"

# What a machine with 64 CPUs has in `/proc/self/cgroup` and below `/sys/fs/cgroup`, and the CPUs and megabytes that
# are found; None where the answers (2 and 512) count.
Machine = tuple[str, Mapping[str, str | None], float | None, int | None]
MACHINES: dict[str, Machine] = {
    "no cgroups": ("", {}, None, None),
    "v2, no limits": ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, None, None),
    "v2, one CPU": ("0::/", {"cpu.max": "100000 100000", "memory.max": GB}, 1, 1024),
    "v2, a tenth of a CPU": ("0::/", {"cpu.max": "10000 100000"}, 0.1, None),
    "v2, more CPUs than the machine": ("0::/", {"cpu.max": "9900000 100000"}, 64, None),
    "v2, memory alone": ("0::/", {"memory.max": GB}, None, 1024),
    "v2, a limit of its own": ("0::/a/b", {"a/b/cpu.max": "150000 100000", "a/b/memory.max": GB}, 1.5, 1024),
    "v2, a limit above": ("0::/a/b/c", {"a/cpu.max": "50000 100000", "a/memory.max": GB}, 0.5, 1024),
    "v2, the lowest of several": (
        "0::/a/b",
        {"cpu.max": "400000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/memory.max": GB}
        | {"memory.max": str(2**31)},
        3,
        1024,
    ),
    "v2, a systemd service in its slice": (
        "0::/system.slice/svc.service",
        {"system.slice/cpu.max": "300000 100000", "system.slice/svc.service/memory.max": GB},
        3,
        1024,
    ),
    "v2, a sibling's limit": ("0::/a", {"b/cpu.max": "100000 100000", "b/memory.max": GB}, None, None),
    "v2, a path from outside the namespace": ("0::/../../x", {"cpu.max": "100000 100000"}, 1, None),
    "v2, the host's path in a container": ("0::/docker/1f", {"cpu.max": "100000 100000", "memory.max": GB}, 1, 1024),
    "v2, nonsense": ("0::/", {"cpu.max": "much", "memory.max": "-1"}, None, None),
    "v2, empty files": ("0::/", {"cpu.max": "", "memory.max": ""}, None, None),
    "v2, a period of zero": ("0::/", {"cpu.max": "100000 0"}, None, None),
    "v2, unreadable": ("0::/", {"cpu.max": None, "memory.max": None}, None, None),
    "v1, no limits": (
        V1,
        {"cpu,cpuacct/svc/cpu.cfs_quota_us": "-1", "cpu,cpuacct/svc/cpu.cfs_period_us": "100000"}
        | {"memory/svc/memory.limit_in_bytes": NO_LIMIT},
        None,
        None,
    ),
    "v1, limits": (
        V1,
        {"cpu,cpuacct/svc/cpu.cfs_quota_us": "250000", "cpu,cpuacct/svc/cpu.cfs_period_us": "100000"}
        | {"memory/svc/memory.limit_in_bytes": GB},
        2.5,
        1024,
    ),
    "v1, mounted under one name": (
        "3:cpu,cpuacct:/",
        {"cpu/cpu.cfs_quota_us": "10000", "cpu/cpu.cfs_period_us": "100000"},
        0.1,
        None,
    ),
    "v1, mounted under the other": (
        "3:cpuacct,cpu:/",
        {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"},
        1,
        None,
    ),
    "v1, limits above": (
        V1.replace("/svc", "/a/b"),
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "100000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}
        | {"memory/memory.limit_in_bytes": GB, "memory/a/b/memory.limit_in_bytes": NO_LIMIT},
        1,
        1024,
    ),
    "v1, the host's path in a container": (
        V1.replace("/svc", "/docker/1f"),
        {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
        | {"memory/memory.limit_in_bytes": GB},
        1,
        1024,
    ),
    "v1, a quota without a period": (V1, {"cpu,cpuacct/svc/cpu.cfs_quota_us": "100000"}, None, None),
    "hybrid": (
        V1 + "0::/svc\n",
        {"cpu,cpuacct/svc/cpu.cfs_quota_us": "100000", "cpu,cpuacct/svc/cpu.cfs_period_us": "100000"}
        | {"memory/svc/memory.limit_in_bytes": GB, "unified/svc/cgroup.procs": "1"},
        1,
        1024,
    ),
}


@pytest.fixture
def capacity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, on a machine with 64 CPUs, in a service that was rendered for 2 CPUs and 512 MB."""
    module = load(SOURCE)
    monkeypatch.setattr(module, "load_answers", lambda: ANSWERS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    return module


@pytest.mark.parametrize(("cgroups", "files", "cpus", "memory_mb"), MACHINES.values(), ids=MACHINES)
def test_the_limits_are_those_of_the_cgroup_and_else_the_answers(
    capacity: ModuleType,
    tmp_path: Path,
    cgroups: str,
    files: Mapping[str, str | None],
    cpus: float | None,
    memory_mb: int | None,
) -> None:
    tree = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": cgroups, **tree}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir()  # unreadable for root too
        else:
            path.write_text(text + "\n")

    limits = capacity.find_limits(tmp_path)

    assert (limits.cpus, limits.memory_mb) == (cpus or 2, memory_mb or 512)
    assert limits.source == (
        f"CPU by {'cgroup' if cpus else 'answer'}, memory by {'cgroup' if memory_mb else 'answer'}"
    )


def test_a_machine_without_proc_and_sys_has_what_was_answered(capacity: ModuleType, tmp_path: Path) -> None:
    limits = capacity.find_limits(tmp_path / "nowhere")
    assert (limits.cpus, limits.memory_mb) == (2, 512)


def test_a_process_has_no_more_cpus_than_it_may_run_on(
    capacity: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert capacity.find_limits(tmp_path).cpus == 1


def test_where_there_is_no_affinity_the_machines_cpus_are_counted(
    capacity: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert capacity.find_limits(tmp_path).cpus == 1


# CPUs, megabytes, worker class, what is set: workers, threads.
PLANS = [
    (1, 512, "gthread", {}, 2, 4),
    (1, 512, "sync", {}, 3, 1),
    (0.1, 512, "gthread", {}, 2, 4),
    (0.1, 512, "sync", {}, 3, 1),
    (1.5, 4096, "gthread", {}, 3, 4),
    (4, 4096, "gthread", {}, 5, 4),
    (4, 4096, "sync", {}, 9, 1),
    (64, 2**20, "gthread", {}, 65, 4),
    (4, 512, "gthread", {}, 5, 4),
    (8, 300, "gthread", {}, 5, 4),
    (8, 300, "sync", {}, 5, 1),
    (1, 128, "gthread", {}, 1, 4),
    (1, 16, "sync", {}, 1, 1),
    (4, 4096, "gthread", {"ceiling": 3}, 3, 4),
    (4, 4096, "gthread", {"ceiling": 30}, 5, 4),
    (4, 200, "gthread", {"ceiling": 3}, 2, 4),
    (1, 128, "gthread", {"workers": 7}, 7, 4),
    (1, 128, "gthread", {"workers": 7, "ceiling": 3}, 7, 4),
    (1, 512, "gthread", {"threads": 12}, 2, 12),
    (1, 512, "gthread", {"threads": 1}, 2, 1),
    (1, 512, "gevent", {}, 2, 40),
    (1, 512, "sync", {"threads": 12}, 3, 1),
    (1, 512, "sync", {"workers": 2, "threads": 12}, 2, 1),
]


@pytest.mark.parametrize(("cpus", "memory_mb", "worker_class", "given", "workers", "threads"), PLANS)
def test_the_counts_follow_from_the_limits_and_the_environment_beats_them(
    capacity: ModuleType,
    cpus: float,
    memory_mb: int,
    worker_class: str,
    given: dict[str, int],
    workers: int,
    threads: int,
) -> None:
    plan = capacity.plan(capacity.Limits(cpus, memory_mb, "a test"), worker_class, **given)
    assert (plan.workers, plan.threads) == (workers, threads)


def test_there_is_a_worker_and_it_fits_and_threads_have_connections(capacity: ModuleType) -> None:
    sizes = itertools.product([0.1, 0.5, 1, 2, 3.7, 16, 256], [128, 200, 512, 4096, 2**20], capacity.THREADS)
    for cpus, memory_mb, worker_class in sizes:
        plan = capacity.plan(capacity.Limits(cpus, memory_mb, "a test"), worker_class)
        assert plan.workers >= 1
        assert plan.workers == 1 or capacity.BASE_MB + plan.workers * capacity.WORKER_MB <= memory_mb
        assert plan.pool_size == (4 if worker_class == "gevent" else plan.threads)
        assert plan.connections(10) <= capacity.MAX_CONNECTIONS or worker_class == "sync" or cpus > 1


@pytest.mark.parametrize(
    ("memory_mb", "given", "reason"),
    [
        (4096, {}, "4 CPU and 4096 MB (a test)"),
        (200, {}, "4 CPU and 200 MB (a test); 2 of 5: memory holds no more"),
        (4096, {"ceiling": 3}, "4 CPU and 4096 MB (a test); 3 of 5: .env allows no more"),
        (4096, {"workers": 3}, "the environment sets the number of workers"),
    ],
)
def test_the_plan_says_why(capacity: ModuleType, memory_mb: int, given: dict[str, int], reason: str) -> None:
    assert capacity.plan(capacity.Limits(4, memory_mb, "a test"), "gthread", **given).reason == reason


def test_it_runs_on_the_standard_library_alone() -> None:
    assert imports(SOURCE.read_text(encoding="utf-8")) <= sys.stdlib_module_names


def test_the_connections_of_a_rolling_update_and_a_migration_are_counted(capacity: ModuleType) -> None:
    plan = capacity.plan(capacity.Limits(1, 512, "a test"), "gthread")
    assert plan.connections(10) == (10 + 1) * 2 * 4 + 1


def test_the_seconds_are_in_order_and_every_one_of_them_is_used(capacity: ModuleType) -> None:
    assert capacity.broken_rungs(capacity.SECONDS) == []
    held = {name for lower, upper, _ in capacity.RUNGS for name in (*lower, upper)}
    assert set(capacity.SECONDS) - held == {"first_bytes"}, "of no other timeout's business"


@pytest.mark.parametrize("rung", range(7))
def test_a_rung_out_of_order_is_told_with_what_would_happen(capacity: ModuleType, rung: int) -> None:
    lower, upper, otherwise = capacity.RUNGS[rung]
    equal = sum(capacity.SECONDS[name] for name in lower)
    told = capacity.broken_rungs({**capacity.SECONDS, upper: equal})
    assert any(otherwise in line and upper in line for line in told)
    assert capacity.broken_rungs({upper: 0.0}) == [], "what is not known is not out of order"


def test_the_card_is_printed_with_the_standard_library_alone(capacity: ModuleType, render: Render) -> None:
    source = render() / "app" / "capacity.py"
    command = [sys.executable, "-I", "-S", "-B", str(source)]
    asked = ["--cpus", "4", "--memory-mb", "2048", "--replicas", "30", "--worker-class", "gthread"]

    def ask(*options: str, **environ: str) -> str:
        return subprocess.run([*command, *options], env=environ, capture_output=True, text=True, check=True).stdout

    told = json.loads(ask(*asked, "--json"))
    assert told["plan"]["workers"] == 5
    assert told["connections"] == 31 * 5 * 4 + 1
    assert told["seconds"] == capacity.SECONDS
    assert "DO NOT FIT" in ask(*asked)
    assert "DO NOT FIT" not in ask(*asked, "--replicas", "2")
    assert json.loads(ask(*asked, "--json", WEB_CONCURRENCY="3", GUNICORN_THREADS="2"))["plan"]["pool_size"] == 2
    assert json.loads(ask(*asked, "--json", WEB_CONCURRENCY="3", GUNICORN_WORKERS="7"))["plan"]["workers"] == 7


def test_the_least_memory_that_can_be_answered_holds_a_worker(capacity: ModuleType) -> None:
    is_memory, _ = template_rules.RULES["memory_mb"]
    least = next(size for size in range(2**20) if is_memory(str(size)))
    for worker_class in capacity.THREADS:
        assert capacity.plan(capacity.Limits(0.1, least, "a test"), worker_class).memory_mb <= least
