"""`async def` views, which every worker class serves, and what the class `asgi` does of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from math import ceil

import pytest

from boot.conftest import Send, Start
from boot.test_promises import get_request, read
from support.service import Service, wait_for

of_asgi = pytest.mark.parametrize("variant", ["asgi"], indirect=True, scope="session")


@pytest.mark.parametrize("view", ["sleep", "sleep-async"])
def test_threads_are_how_many_requests_a_worker_has_in_hand(start: Start, send: Send, view: str) -> None:
    """An `async def` view waits in its thread: an event loop adds no concurrency to Flask."""
    service = start(WEB_CONCURRENCY="1")
    threads = service.wait_for_metrics(lambda m: m.total("server_threads") > 0, "threads").total("server_threads")
    count, seconds = int(threads) * 2 + 1, 0.5
    service.get(f"/trial/{view}/0.0")
    began = time.monotonic()
    connections = send(service, *[get_request(f"/trial/{view}/{seconds}")] * count)
    assert all(b"200 OK" in read(connection) for connection in connections)
    assert ceil(count / threads) * seconds <= time.monotonic() - began < (ceil(count / threads) + 2) * seconds


def test_an_async_view_that_fails_is_a_problem_like_any_other(service: Service) -> None:
    answer = service.get("/trial/fail-async", {"X-Request-ID": "async-failure"})
    assert (answer.status, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert "ZeroDivisionError" in service.wait_for_log(request_id="async-failure", level="ERROR")["exc_info"]


@of_asgi
def test_the_start_says_how_many_threads_and_nothing_against_them(start: Start) -> None:
    service = start(LOG_LEVEL="DEBUG", GUNICORN_THREADS="6", WEB_CONCURRENCY="1")
    service.wait_for_log(message="1 asgi workers of 6 threads")
    service.wait_for_metrics(lambda m: m.total("server_threads") == 6, "six threads")
    assert service.stop() == 0
    assert not [line for line in service.log() if "does not use threads" in line["message"]]
    assert not [line for line in service.log() if line["level"] in ("WARNING", "ERROR")]
    assert service.errors.read_text() == ""


@of_asgi
def test_a_head_that_trickles_in_takes_no_thread(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    begun = send(service, *["GET /trial/client HTTP/1.1\r\nHost: loc"] * 12)
    began = time.monotonic()
    assert service.get("/healthz/live").status == 200
    assert time.monotonic() - began < 3
    for connection in begun:
        connection.sendall(b"alhost\r\nConnection: close\r\n\r\n")
    assert all(b"200 OK" in read(connection) for connection in begun)


@of_asgi
def test_requests_on_kept_connections_wait_for_a_thread_too(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    service.wait_for_metrics(lambda m: m.total("server_threads") == 4, "four threads")
    connections = send(service, *[get_request("/healthz/live", "keep-alive")] * 9)
    for connection in connections:
        assert b"200 OK" in connection.recv(65536)
    for connection in connections:  # all of them are accepted by now
        connection.sendall(get_request("/trial/sleep/1.0").encode())
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == 4, "four threads busy")
    most = 0.0
    began = time.monotonic()
    while time.monotonic() - began < 1:
        most = max(most, service.metrics().total("server_threads_busy"))
    assert most == 4
    assert all(b"200 OK" in read(connection) for connection in connections)


@of_asgi
def test_a_websocket_is_refused_and_nobody_is_told(start: Start, send: Send) -> None:
    service = start()
    upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    (connection,) = send(service, f"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n{upgrade}\r\n")
    assert b" 403 " in read(connection)
    assert service.stop() == 0
    assert not [line for line in service.log() if line["level"] in ("WARNING", "ERROR")]


@of_asgi
def test_a_client_that_goes_away_in_the_middle_of_its_body_is_not_taken_for_whole(start: Start, send: Send) -> None:
    service = start()
    (connection,) = send(service, "POST /trial/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
    service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") == 1, "one in flight")
    connection.close()
    assert service.wait_for_log(logger="^app.request$", path="/trial/echo")["status"] == 400
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == 0, "no thread busy")


@of_asgi
def test_a_view_that_exits_ends_its_request_and_not_the_server(start: Start) -> None:
    service = start(WEB_CONCURRENCY="1")
    workers = service.wait_for_workers(1)
    with contextlib.suppress(OSError, ValueError):
        service.get("/trial/exit")
    assert service.get("/healthz/live").status == 200
    assert service.workers() == workers


@of_asgi
def test_a_loop_that_hangs_is_in_the_log_and_its_worker_replaced(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--timeout 2")
    (stuck,) = service.wait_for_workers(1)
    send(service, get_request("/trial/block-the-loop/60.0"))
    assert "run_until_complete" in service.wait_for_log(level="ERROR", message="did not answer")["message"]
    service.wait_for_workers(1, without={stuck})
    assert service.get("/healthz/live").status == 200


@of_asgi
def test_a_worker_told_to_stop_at_once_waits_for_no_stream(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    (told,) = service.wait_for_workers(1)
    (connection,) = send(service, get_request("/trial/endless"))
    assert connection.recv(65536)
    os.kill(told, signal.SIGQUIT)
    service.wait_for_log(message="the endless stream was closed")
    wait_for(lambda: told not in service.session(), "the worker has ended", 5)
