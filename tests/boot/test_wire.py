"""What a service makes of the bytes that come, and what becomes of those who send them, whatever serves it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time

import pytest

from boot.conftest import Send, Start
from boot.test_promises import counted, get_request, read
from support.service import Service, wait_for

CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        f"Content-Length: 5\r\n{CHUNKED}",
        f"{CHUNKED}Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: xchunked\r\n",
    ],
)
def test_a_request_whose_end_can_be_read_in_two_ways_is_refused(service: Service, send: Send, headers: str) -> None:
    (connection,) = send(service, f"POST /trial/echo HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n0\r\n\r\n")
    answer = read(connection)
    assert answer.split()[1] in (b"400", b"501")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_header_with_an_underscore_is_not_believed(start: Start, send: Send) -> None:
    service = start(TRUSTED_PROXY_HOPS="1")
    forged = "X_Forwarded_For: 203.0.113.9\r\nX_Forwarded_Proto: https\r\nX_Forwarded_Host: evil.example\r\n"
    request = f"GET /trial/client HTTP/1.1\r\nHost: localhost\r\n{forged}Connection: close\r\n\r\n"
    answer = read(send(service, request)[0])
    assert b'"address":"127.0.0.1"' in answer
    assert b'"host":"localhost"' in answer
    assert b'"scheme":"http"' in answer


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        ("/trial/path/b%C3%BCcher%2F%25", "b\u00fccher/%"),
        ("http://localhost/trial/path/whole?x=1", "whole"),
        ("/trial/path/%2e%2e/up", "../up"),
    ],
)
def test_a_path_is_decoded_once(service: Service, send: Send, sent: str, path: str) -> None:
    answer = read(send(service, get_request(sent))[0])
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == path


@pytest.mark.parametrize("path", ["/%00", "/%FF", "//", "/trial/path/%00%FF"])
def test_bytes_that_are_no_text_are_no_error_of_ours(service: Service, send: Send, path: str) -> None:
    assert read(send(service, get_request(path))[0]).split()[1] in (b"200", b"308", b"404")


def test_a_client_of_http_1_0_needs_no_host(service: Service, send: Send) -> None:
    answer = read(send(service, "GET /trial/client HTTP/1.0\r\n\r\n")[0])
    assert answer.split()[1] == b"200"
    assert f'"host":"127.0.0.1:{service.port}"'.encode() in answer


def test_head_and_204_have_no_body(service: Service, send: Send) -> None:
    answer = read(send(service, get_request("/api/items").replace("GET", "HEAD"))[0])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (b"200", b"")
    path = service.request("POST", "/api/items", {"name": "Bolt"}).headers["Location"]
    answer = read(send(service, get_request(path).replace("GET", "DELETE"))[0])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (head.split()[1], body) == (b"204", b"")
    assert b"transfer-encoding" not in head.lower()


def test_a_large_body_comes_whole_in_one_piece_or_in_chunks(service: Service) -> None:
    pieces = [b"x" * 99_991] * 8
    assert service.request("POST", "/trial/size", b"".join(pieces)).json["size"] == 8 * 99_991
    connection = service.connect()
    with contextlib.closing(connection):
        headers = {"Transfer-Encoding": "chunked", "Connection": "close"}
        connection.request("POST", "/trial/size", iter(pieces), headers, encode_chunked=True)
        assert f'"size":{8 * 99_991}'.encode() in connection.getresponse().read()


def test_chunks_arrive_as_they_are_yielded(service: Service, send: Send) -> None:
    began = time.monotonic()
    (connection,) = send(service, get_request("/trial/stream/10"))
    first = connection.recv(65536)
    assert time.monotonic() - began < 0.8, "before the last of them is made"
    assert (first + read(connection)).count(b"x" * 1000) == 10


def test_a_client_that_goes_away_ends_its_stream(start: Start, send: Send) -> None:
    service = start()
    (connection,) = send(service, get_request("/trial/endless"))
    connection.recv(65536)
    connection.close()
    service.wait_for_log(message="the endless stream was closed")
    assert service.wait_for_log(logger="^app.request$", path="/trial/endless")["status"] == 200
    metrics = service.wait_for_metrics(lambda m: counted(m, "/trial/endless") == 1, "counted once")
    assert metrics.total("http_requests_in_flight") == metrics.total("server_threads_busy") == 0
    assert not [line for line in service.log() if line["level"] == "ERROR"]


def test_a_client_that_goes_away_while_it_waits_is_counted_once(start: Start, send: Send) -> None:
    service = start()
    (connection,) = send(service, get_request("/trial/sleep/0.5"))
    service.wait_for_metrics(lambda m: m.total("http_requests_in_flight") == 1, "one in flight")
    connection.close()
    service.wait_for_metrics(lambda m: counted(m, "/trial/sleep/<float:seconds>") == 1, "counted once")
    service.wait_for_metrics(lambda m: m.total("server_threads_busy") == 0, "no thread busy")


def test_a_client_that_has_said_all_may_close_its_half(service: Service, send: Send) -> None:
    (connection,) = send(service, get_request("/trial/sleep/0.2", "keep-alive"))
    connection.shutdown(socket.SHUT_WR)
    assert b"200 OK" in read(connection)


def test_a_worker_that_is_given_up_says_where_it_was(start: Start) -> None:
    service = start(WEB_CONCURRENCY="1")
    (worker,) = service.wait_for_workers(1)
    os.kill(worker, signal.SIGABRT)
    assert "File" in service.wait_for_log(level="ERROR", message=f"Worker {worker} did not answer")["message"]
    service.wait_for_workers(1, without={worker})


def test_an_idle_connection_does_not_delay_a_stop(start: Start, send: Send) -> None:
    service = start(WEB_CONCURRENCY="1")
    (connection,) = send(service, get_request("/healthz/live", "keep-alive"))
    assert b"200 OK" in connection.recv(65536)
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 5
    wait_for(lambda: connection.recv(65536) == b"", "it is closed")
