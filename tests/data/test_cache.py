"""The cache and the limits on a real Redis, with several workers: one computation, one count, nothing outdated."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boot.conftest import Changed, Start
from support.redis import Redis
from support.service import Answer, Service, wait_for

CALLERS = 50
ENTRY, LEASE = "cache:{price}", "cache:{price}:lease"


class Source:
    """Where `/trial/cached` gets its value from, and the files by which a test follows and holds a computation."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hold, self.computed = folder, folder / "hold", folder / "computed"
        self.computed.touch()
        self.set("old")

    def set(self, value: str) -> None:
        (self.folder / "source").write_text(value)

    def computations(self) -> int:
        return len(self.computed.read_text().splitlines())

    def ask(self, service: Service) -> Answer:
        return service.get(f"/trial/cached/price?folder={self.folder}")


@pytest.fixture
def service(on_redis: Service) -> Service:
    return on_redis


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "source").mkdir()
    return Source(tmp_path / "source")


def workers_for_all(redis_url: str, variant: str) -> dict[str, str]:
    """What two workers need to have all callers in hand at once; a sync worker has one, so eight have eight."""
    workers, threads = (8, 1) if variant == "sync" else (2, CALLERS // 2)
    return {"REDIS_URL": redis_url, "WEB_CONCURRENCY": str(workers), "GUNICORN_THREADS": str(threads)}


def stampede(service: Service, source: Source, callers: int) -> int:
    """How often a value is computed that so many ask for at the same time."""
    source.hold.touch()
    with ThreadPoolExecutor(callers) as pool:
        answers = [pool.submit(source.ask, service) for _ in range(callers)]
        service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") == callers, "all are in the service")
        wait_for(source.computations, "somebody computes")
        source.hold.unlink()
        assert [answer.result().json["value"] for answer in answers] == ["old"] * callers
    return source.computations()


@pytest.mark.default_class
def test_of_fifty_callers_at_once_one_computes(start: Start, redis_url: str, source: Source, variant: str) -> None:
    callers = 8 if variant == "sync" else CALLERS
    assert stampede(start(**workers_for_all(redis_url, variant)), source, callers) == 1


@pytest.mark.with_all
@pytest.mark.default_class
def test_without_a_lease_all_of_them_would(changed: Changed, redis_url: str, source: Source, variant: str) -> None:
    service = changed({"app/cache.py": [("'NX', ", "")]}, **workers_for_all(redis_url, variant))
    assert stampede(service, source, 8) > 1


def outdated(service: Service, source: Source) -> bool:
    """Whether what was read before a write is kept after it."""
    source.hold.touch()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(source.ask, service)
        wait_for(source.computations, "the reader has read")
        source.set("new")
        assert service.get("/trial/forget/price").status == 200
        source.hold.unlink()
        assert reader.result().json["value"] == "old", "it began before the write"
    return bool(source.ask(service).json["value"] == "old")


@pytest.mark.default_class
def test_what_was_computed_before_a_write_is_not_kept_after_it(service: Service, source: Source) -> None:
    assert not outdated(service, source)
    source.set("newer")
    assert source.ask(service).json["value"] == "new", "that is kept"
    service.get("/trial/forget/price")
    assert source.ask(service).json["value"] == "newer"


@pytest.mark.with_all
@pytest.mark.default_class
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("redis.call('DEL', KEYS[1], KEYS[2])", "redis.call('DEL', KEYS[1])"),  # forget leaves the lease
        ("if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end", ""),  # it is kept without one
    ],
)
def test_without_care_for_the_lease_it_would_be(
    changed: Changed, redis_url: str, source: Source, right: str, wrong: str
) -> None:
    service = changed({"app/cache.py": [(right, wrong)]}, REDIS_URL=redis_url)
    assert outdated(service, source)


@pytest.mark.default_class
def test_after_a_computation_that_failed_the_next_caller_tries(
    service: Service, redis_server: Redis, source: Source
) -> None:
    source.set("")
    assert source.ask(service).status == 500
    assert redis_server.ask("EXISTS", ENTRY, LEASE) == "0"
    source.set("mended")
    for _ in range(2):
        assert source.ask(service).json["value"] == "mended"
    assert source.computations() == 2


@pytest.mark.default_class
def test_a_lease_that_nobody_gives_back_is_not_waited_for_without_end(
    changed: Changed, redis_url: str, redis_server: Redis, source: Source
) -> None:
    service = changed({"app/cache.py": [("WAIT = 5.0", "WAIT = 0.5")]}, REDIS_URL=redis_url)
    redis_server.ask("SET", LEASE, "of one that was killed", "PX", "60000")
    assert source.ask(service).json["value"] == "old"
    assert redis_server.ask("EXISTS", ENTRY) == "0", "only who has the lease keeps what it computed"


@pytest.mark.default_class
def test_values_live_for_about_as_long_as_was_said(service: Service, redis_server: Redis, source: Source) -> None:
    lives = set()
    for _ in range(10):
        source.ask(service)
        lives.add(int(redis_server.ask("PTTL", ENTRY)))
        service.get("/trial/forget/price")
    assert all(25_000 < life <= 33_000 for life in lives)
    assert max(lives) - min(lives) > 300, "not all as long, or they would all end at once"


@pytest.mark.default_class
def test_a_summary_is_right_after_every_write(service: Service, redis_server: Redis) -> None:
    def summary() -> tuple[int, int]:
        found = service.get("/api/items/summary").json
        return found["items"], found["quantity"]

    assert summary() == (0, 0)
    where = service.request("POST", "/api/items", {"name": "bolt", "quantity": 3}).headers["Location"]
    assert summary() == (1, 3)
    service.request("PATCH", where, {"quantity": 5})
    assert summary() == (1, 5)
    assert redis_server.ask("EXISTS", "cache:{items:summary}") == "1"
    service.request("DELETE", where)
    assert summary() == (0, 0)


@pytest.mark.default_class
@pytest.mark.parametrize("shared", [True, False])
def test_workers_count_a_client_together_where_there_is_redis(start: Start, redis_url: str, shared: bool) -> None:
    service = start(REDIS_URL=redis_url if shared else "", RATELIMIT_WRITES="10 per hour")
    alone = [line for line in service.log() if "limits are counted by each worker alone" in line["message"]]
    assert len(alone) == (0 if shared else 1)
    answers: list[Answer] = []

    def ask() -> Counter[int]:
        answers.append(service.get("/trial/everything"))
        return Counter(answer.json["pid"] for answer in answers if answer.status == 200)

    wait_for(lambda: ask().total() == 10 * (1 if shared else 2), "all counts are full")
    for _ in range(20):
        passed = ask()
    assert {answer.status for answer in answers} == {200, 429}
    assert passed.total() == 10 * (1 if shared else len(passed))
    assert int(answers[-1].headers["Retry-After"]) > 3000
