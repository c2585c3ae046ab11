"""The idle ladder: a server keeps an idle connection for longer than its client does.

Else a client sends on a connection that its server has just closed, and a POST, which nobody may repeat, is lost: 502.
The seconds are those of `app/capacity.py`, every one divided by twenty. The load balancer, nginx and the service stand
a network apart from each other.
"""

from __future__ import annotations

import asyncio
import re
import resource
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from boot.conftest import THREADED, Start
from support.nginx import nginx
from support.relay import Relay
from support.service import Service, free_port
from support.template import SERVICE, load

# A sync worker keeps no connection alive: there is none that could be used again.
pytestmark = THREADED

CAPACITY = load(SERVICE / "app" / "capacity.py")
SECONDS: Mapping[str, float] = CAPACITY.SECONDS
SCALE = 20
DELAY = 0.05  # between two hosts, each way; it is not divided by twenty, and still the ladder has room for it
LANES = 10  # connections that are idle for the same time and used again at the same moment

# Before and after each limit, in steps of half the time in which a close and a request can pass each other.
LIMITS = sorted({SECONDS[name] / SCALE for name in ("balancer_idle", "proxy_idle", "upstream_idle", "keepalive")})
IDLE = [limit + step * DELAY for limit in LIMITS for step in range(-7, 3)]


class Seen(NamedTuple):
    """What a load balancer saw.

    Attributes:
        outcomes: how many of the POSTs that came after an idle time were "answered", answered "502" or "cut off".
        kept_to_nginx: how many POSTs were sent on a connection to nginx that was there already.
        kept_to_service: the same of nginx's connections to the service.
    """

    outcomes: Counter[str]
    kept_to_nginx: int
    kept_to_service: int


@pytest.fixture(autouse=True)
def enough_descriptors() -> Iterator[None]:
    """Each lane takes five of this process, its own and two in each network: a thousand, and 1,024 is a usual limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.with_all
@pytest.mark.default_class
def test_a_thousand_posts_around_every_limit_are_all_answered(start: Start, tmp_path: Path) -> None:
    seen = spaced_posts(start, tmp_path, SECONDS, rounds=5)
    assert seen.outcomes == {"answered": seen.outcomes.total()}, seen
    assert seen.outcomes.total() >= 1000
    assert seen.kept_to_nginx > 50, "of 350, on a machine that has time"
    assert seen.kept_to_service > 50, "of about 260"


@pytest.mark.default_class
@pytest.mark.parametrize(
    ("client", "server", "outcome"),
    [("balancer_idle", "proxy_idle", "cut off"), ("upstream_idle", "keepalive", "502")],
)
@pytest.mark.with_all
def test_with_two_steps_of_the_ladder_exchanged_some_are_lost(
    start: Start, tmp_path: Path, client: str, server: str, outcome: str
) -> None:
    exchanged = {**SECONDS, client: SECONDS[server], server: SECONDS[client]}
    assert len(CAPACITY.broken_rungs(exchanged)) == 1
    seen = spaced_posts(start, tmp_path, exchanged, rounds=2)
    assert seen.outcomes[outcome] > 0, seen
    assert set(seen.outcomes) == {"answered", outcome}, "nothing else goes wrong"


def spaced_posts(start: Start, folder: Path, seconds: Mapping[str, float], rounds: int) -> Seen:
    """`rounds` times `LANES` POSTs after each time in `IDLE`, by way of nginx to a service, with these limits."""
    seen = asyncio.run(balance(serve(start, folder, seconds), folder, seconds, rounds))
    print(seen)
    return seen


def serve(start: Start, folder: Path, seconds: Mapping[str, float]) -> Service:
    scaled = folder / "scaled.conf.py"
    scaled.write_text(
        "import runpy\n"
        "globals().update(runpy.run_path('gunicorn.conf.py'))\n"
        "forked = post_fork\n"
        "def post_fork(server, worker):\n"
        "    # Here and not above, because the setting refuses fractions; the worker only adds it to the time.\n"
        f"    worker.cfg.settings['keepalive'].value = {seconds['keepalive'] / SCALE}\n"
        "    forked(server, worker)\n"
    )
    return start(GUNICORN_CMD_ARGS=f"--config {scaled}")


async def balance(service: Service, folder: Path, seconds: Mapping[str, float], rounds: int) -> Seen:
    port = free_port()
    outcomes: Counter[str] = Counter()
    async with Relay(service.port, DELAY) as inner, Relay(port, DELAY) as outer:
        with nginx(folder / "nginx", port, config(port, inner.port, seconds)):
            limit = seconds["balancer_idle"] / SCALE
            async with asyncio.timeout(120), asyncio.TaskGroup() as lanes:
                for group in sorted([*range(len(IDLE))] * LANES):
                    lanes.create_task(lane(outer.port, group, limit, rounds, outcomes))
    posts = len(IDLE) * LANES * (1 + rounds)
    return Seen(outcomes, posts - outer.connections, posts - inner.connections)


async def lane(port: int, group: int, limit: float, rounds: int, outcomes: Counter[str]) -> None:
    """One connection of a load balancer, which uses it unless it is closed or was idle for `limit` seconds."""
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(IDLE[-1] * group / len(IDLE))  # one group after the other, so that the load is even
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        assert await post(reader, writer, group) == 200
        for _ in range(rounds):
            answered = clock()
            await asyncio.sleep(IDLE[group])
            if clock() - answered >= limit or reader.at_eof():
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                status = await post(reader, writer, group)
                outcomes["answered" if status == 200 else str(status)] += 1
            except (EOFError, OSError):
                outcomes["cut off"] += 1
    finally:
        writer.close()


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, group: int) -> int:
    """The status of a POST, once its whole answer is read."""
    writer.write(f"POST /{group}/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nspam".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    await reader.readexactly(int(re.findall(r"(?i)content-length: (\d+)", head)[0]))
    return int(head.split()[1])


def config(port: int, upstream: int, seconds: Mapping[str, float]) -> str:
    """nginx with an upstream for each group.

    Of the connections that nginx keeps to one upstream it takes the one used last: were they shared, none would be
    idle for as long as its group.
    """
    client, idle = (f"{seconds[name] / SCALE * 1000:.0f}ms" for name in ("proxy_idle", "upstream_idle"))
    groups = range(len(IDLE))
    kept = f"server 127.0.0.1:{upstream}; keepalive {LANES}; keepalive_timeout {idle};"
    lines = [f"upstream group{number} {{ {kept} }}" for number in groups]
    lines += [f"server {{ listen 127.0.0.1:{port}; keepalive_timeout {client};"]
    lines += ['proxy_http_version 1.1; proxy_set_header Connection "";']
    lines += [f"location /{number}/ {{ proxy_pass http://group{number}/trial/; }}" for number in groups]
    return "\n".join([*lines, "}"])
