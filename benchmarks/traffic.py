"""Requests over loopback: a given number of them, from a few clients that do as little as they can."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

CLIENTS = 4
HEAD = re.compile(rb"HTTP/1\.1 2(?:.*\r\n)*?content-length: (\d+)\r\n(?:.*\r\n)*?\r\n", re.IGNORECASE)


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """The bytes of a request; a body is JSON."""
    if body:
        headers += ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode() + body


def send(port: int, message: bytes, count: int) -> float:
    """Send this request `count` times, over connections kept where the server keeps them.

    Returns:
        The seconds it took.

    Raises:
        AssertionError: a request was not answered with success.
    """
    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        for client in [pool.submit(repeat, port, message, count // CLIENTS) for _ in range(CLIENTS)]:
            client.result()
        return time.perf_counter() - began


def repeat(port: int, message: bytes, count: int) -> None:
    connection: socket.socket | None = None
    for _ in range(count):
        connection = connection or socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(message)
        answer = b""
        while not (head := HEAD.match(answer)) or len(answer) < head.end() + int(head[1]):
            received = connection.recv(65536)
            assert received, f"the server closed the connection after {answer!r}"
            answer += received
        if b"\r\nConnection: close\r\n" in answer:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
