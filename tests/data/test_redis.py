"""Redis that is refused, frozen, slow or started anew: no request fails or waits long, and it is told once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest

from boot.conftest import Changed, Start
from support.redis import Redis, redis
from support.relay import Relay, relaying
from support.service import Service, free_port, wait_for

WORKERS = 2
CLIENTS = 4
Action = Callable[[], object]
ALLOWED = 0.25  # seconds that an answer may take longer than with a Redis that is well
EVERYTHING = "/trial/everything"  # asks Redis for a session, a limit and a value of the cache


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own."""
    (tmp_path / "redis").mkdir()
    with redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def relay(server: Redis) -> Iterator[Relay]:
    """The network in front of it: it can be slow, and knows how often somebody connects."""
    with relaying(server.port) as relay:
        yield relay


def url(relay: Relay) -> str:
    return f"redis://127.0.0.1:{relay.port}/0"


class Clients:
    """Some that ask again and again, until the context ends.

    Attributes:
        seconds: how long each request took.
        failures: what was not answered with 200, and how.
    """

    def __init__(self, service: Service, count: int) -> None:
        self.service = service
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._over = Event()
        self._threads = [Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            began = time.monotonic()
            try:
                status = self.service.get(EVERYTHING, timeout=5).status
                self.failures += [] if status == 200 else [str(status)]
            except OSError as error:
                self.failures.append(repr(error))
            self.seconds.append(time.monotonic() - began)

    def slowest(self) -> float:
        """But one in a hundred: what a busy machine does to a single request says nothing of the service."""
        return sorted(self.seconds)[-1 - len(self.seconds) // 100]


def slowest_of(service: Service, count: int, clients: int = CLIENTS) -> float:
    """The slowest of so many answers."""
    with Clients(service, clients) as asking:
        wait_for(lambda: len(asking.seconds) >= count, f"{count} answers")
    assert asking.failures == []
    return asking.slowest()


def changes(service: Service) -> list[str]:
    """What the log says of Redis, a word a line; nothing else there may be worse than INFO."""
    lines = [line["message"].split() for line in service.log() if line["level"] != "INFO" or "redis" in line["message"]]
    assert all(line[:2] == ["redis", "is"] for line in lines), lines
    return sorted(line[2].strip(",") for line in lines)


def is_told(service: Service, state: str) -> bool:
    """Each worker said once that it is down, and up again; one may have said both twice, for a slow answer as it came."""
    found = Counter(changes(service))
    down, up = found["down"], found["up"]
    return WORKERS <= down <= WORKERS + 1 and up == (down if state == "up" else down - WORKERS)


def wait_until(service: Service, state: str, seconds: float = 15) -> None:
    """Every worker knows of it, and whoever asks about the service, too."""
    wait_for(lambda: is_told(service, state), f"the log says that it is {state}", seconds)
    answer = service.get("/healthz/ready")
    assert answer.status == 200
    assert answer.json["status"] == ("ok" if state == "up" else "degraded")
    assert answer.json["checks"]["redis"]["state"] == state
    assert answer.json["checks"]["redis"]["required"] is False
    service.wait_for_metrics(
        lambda m: ({"name": "redis"}, float(state == "up")) in m.samples("dependency_up"), f"a metric says {state}"
    )


def wait_for_questions(relay: Relay) -> None:
    """Two more by each worker: one a second, whatever is asked of the service meanwhile."""
    began, before = time.monotonic(), relay.connections
    wait_for(lambda: relay.connections >= before + 2 * WORKERS, "each worker asks whether Redis is back")
    assert time.monotonic() - began > 0.5, "somebody else asks, too"


def endure(service: Service, relay: Relay, begin: Action, end: Action, patience: float = 15) -> None:
    """A fault that begins and ends while clients ask; patience is the seconds in which the workers notice."""
    normal = slowest_of(service, 60)
    with Clients(service, CLIENTS) as clients:
        begin()
        wait_until(service, "down", patience)
        wait_for_questions(relay)
        end()
        wait_until(service, "up")
    assert clients.failures == []
    assert clients.slowest() < normal + ALLOWED
    assert "X-RateLimit-Remaining" in service.get(EVERYTHING).headers
    assert service.stop() == 0
    assert is_told(service, "up")


def test_a_redis_that_freezes_is_left_alone_until_it_is_back(start: Start, server: Redis, relay: Relay) -> None:
    endure(start(REDIS_URL=url(relay)), relay, server.freeze, server.thaw)


@pytest.mark.default_class
def test_a_redis_that_dies_is_left_alone_until_it_is_back(start: Start, server: Redis, relay: Relay) -> None:
    endure(start(REDIS_URL=url(relay)), relay, server.kill, server.start)


@pytest.mark.default_class
def test_a_redis_that_is_too_slow_is_left_alone_until_it_is_not(start: Start, relay: Relay) -> None:
    def delay(seconds: float) -> None:
        relay.delay = seconds

    endure(start(REDIS_URL=url(relay)), relay, partial(delay, 0.3), partial(delay, 0))


@pytest.mark.default_class
def test_a_redis_that_is_slow_is_used(start: Start, relay: Relay) -> None:
    service = start(REDIS_URL=url(relay))
    normal = slowest_of(service, 60)
    relay.delay = 0.015  # and as much on the way back
    assert slowest_of(service, 30, clients=1) < normal + ALLOWED
    wait_for(lambda: "X-RateLimit-Remaining" in service.get(EVERYTHING).headers, "requests are counted")


@pytest.mark.default_class
def test_a_redis_that_is_not_there_yet_is_used_when_it_comes(start: Start, tmp_path: Path) -> None:
    server = Redis(tmp_path, free_port())
    service = start(REDIS_URL=server.url)
    with Clients(service, CLIENTS) as clients:
        wait_until(service, "down")
        try:
            server.start()
            wait_until(service, "up")
            assert clients.failures == []
        finally:
            server.stop()


@pytest.mark.default_class
def test_where_readiness_requires_redis_it_waits_for_it(start: Start) -> None:
    service = start(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", READINESS_REQUIRED="redis")
    answer = service.get("/healthz/ready")
    assert (answer.status, answer.json["status"]) == (503, "unavailable")
    assert answer.json["checks"]["redis"]["required"] is True


@pytest.mark.with_all
@pytest.mark.default_class
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("retry=Guard(breaker), ", ""),  # redis-py's own: it tries again and again
        ("self.breaker.trip(error)", "pass"),  # every request finds out for itself
    ],
)
def test_a_redis_that_freezes_is_noticed_where_nothing_guards_against_it(
    changed: Changed, server: Redis, relay: Relay, right: str, wrong: str
) -> None:
    service = changed({"app/redis.py": [(right, wrong)]}, REDIS_URL=url(relay))
    with pytest.raises(AssertionError):
        endure(service, relay, server.freeze, server.thaw, patience=5)


def fail_over(service: Service, relay: Relay, former: Redis, present: Redis) -> bool:
    """Whether the service finds the new primary while the former one goes on as a copy, which takes no writes."""
    slowest_of(service, 60)  # as many connections as are going to be used
    assert "X-RateLimit-Remaining" in service.get(EVERYTHING).headers
    relay.target = present.port
    former.ask("REPLICAOF", "127.0.0.1", str(present.port))
    with Clients(service, CLIENTS) as clients:
        wait_for(lambda: len(clients.seconds) > 60, "60 answers")
    assert clients.failures == []
    return all("X-RateLimit-Remaining" in service.get(EVERYTHING).headers for _ in range(10))


@pytest.mark.default_class
def test_after_a_failover_the_new_primary_is_found(start: Start, server: Redis, relay: Relay, tmp_path: Path) -> None:
    service = start(REDIS_URL=url(relay))
    with redis(tmp_path) as present:
        assert fail_over(service, relay, server, present)
    refusals = [line["message"] for line in service.log() if line["message"].startswith("redis refuses: ")]
    assert 1 <= len(refusals) <= WORKERS


@pytest.mark.with_all
@pytest.mark.default_class
def test_a_connection_to_the_former_primary_is_noticed_where_it_is_kept(
    changed: Changed, tmp_path: Path, server: Redis, relay: Relay
) -> None:
    patient = f"{url(relay)}?socket_timeout=3"  # else a slow answer on a busy machine ends the connection
    service = changed({"app/redis.py": [("(*FAILURES, ReadOnlyError)", "FAILURES")]}, REDIS_URL=patient)
    with redis(tmp_path) as present:
        assert not fail_over(service, relay, server, present)
