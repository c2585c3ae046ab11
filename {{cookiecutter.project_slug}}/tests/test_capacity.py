"""How CPUs and memory become workers and threads, and where the two are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.capacity import Limits, find_limits, load_answers, plan


@pytest.mark.parametrize(
    ("worker_class", "cpus", "memory_mb", "workers", "threads"),
    [
        ("gthread", 0.5, 512, 2, 4),
        ("gthread", 4, 4096, 5, 4),
        ("gthread", 4, 200, 2, 4),  # what fits into memory
        ("gthread", 4, 64, 1, 4),
        ("sync", 4, 2048, 9, 1),
        ("gevent", 1, 512, 2, 40),
    ],
)
def test_workers_follow_cpus_and_memory(
    worker_class: str, cpus: float, memory_mb: int, workers: int, threads: int
) -> None:
    sized = plan(Limits(cpus, memory_mb, "test"), worker_class)
    pool_size = 4 if worker_class == "gevent" else threads
    assert (sized.workers, sized.threads, sized.pool_size) == (workers, threads, pool_size)


VERSION_2 = {
    "proc/self/cgroup": "0::/pod/main",
    "sys/fs/cgroup/pod/main/cpu.max": "max 100000",
    "sys/fs/cgroup/pod/cpu.max": "50000 100000",
    "sys/fs/cgroup/pod/memory.max": f"{300 * 2**20}",
}
VERSION_1 = {
    "proc/self/cgroup": "4:memory:/pod\n3:cpu,cpuacct:/pod",
    "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "50000",
    "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": f"{300 * 2**20}",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}",
}


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1])
def test_a_container_is_held_to_its_cgroups_limits(files: dict[str, str], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert find_limits(tmp_path) == Limits(0.5, 300, "CPU by cgroup, memory by cgroup")


def test_without_limits_the_answers_count(tmp_path: Path) -> None:
    limits = find_limits(tmp_path)
    assert limits.memory_mb == int(load_answers()["memory_mb"])
    assert limits.cpus <= float(load_answers()["cpus"])
