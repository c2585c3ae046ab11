"""`make demo`: render a service with the default answers, start it, show it at work, and leave it running."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "demo"
SLUG = "my-service"
START_SECONDS = 120.0  # dependencies are downloaded before the first answer


def main() -> None:
    """Show it.

    Raises:
        SystemExit: with one line, when the service does not start.
    """
    began = time.monotonic()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    cookiecutter(str(ROOT), no_input=True, output_dir=str(BUILD), default_config=True)
    log = BUILD / "log"
    port = first_free_port(int(os.environ.get("PORT") or 8000))
    metrics_port = first_free_port(int(os.environ.get("METRICS_PORT") or 9102))
    environ = {**os.environ, "PORT": str(port), "METRICS_PORT": str(metrics_port)}
    environ = {name: value for name, value in environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    print(f"$ make run   (in {(BUILD / SLUG).relative_to(ROOT)}; it installs its dependencies first)", flush=True)
    with log.open("wb") as output:
        service = subprocess.Popen(["make", "run"], cwd=BUILD / SLUG, env=environ, stdout=output, stderr=output)
    try:
        wait_until_live(service, port, log)
        print(f"\nIt answers, {time.monotonic() - began:.0f} s after the command was given. Some requests:")
        show(port, metrics_port, log)
        print(f"\nIt stays up at http://127.0.0.1:{port} until you press Ctrl-C.", flush=True)
        service.wait()
    except KeyboardInterrupt:
        print("\nStopping.")
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def first_free_port(port: int) -> int:
    """`port`, or the next one that nothing listens on."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return first_free_port(port + 1)
    return port


def wait_until_live(service: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if service.poll() is not None:
            sys.exit(f"The service did not start:\n{log.read_text()}")
        try:
            request(port, "GET", "/healthz/live")
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"The service did not answer within {START_SECONDS:.0f} s; its output is in {log}")


def show(port: int, metrics_port: int, log: Path) -> None:
    """A handful of requests, as a newcomer would make them, and what the operator sees of one."""
    status, body, _ = request(port, "GET", "/")
    tell("GET /", status, body.partition("<h1>")[2].partition("</h1>")[0] + ": the page, for a browser")
    status, body, request_id = request(port, "POST", "/api/items", {"name": "Bolt", "quantity": 3})
    tell('POST /api/items {"name": "Bolt", "quantity": 3}', status, body)
    tell("GET /api/items", *request(port, "GET", "/api/items")[:2])
    tell('POST /api/items {"quantity": -1}', *request(port, "POST", "/api/items", {"quantity": -1})[:2])
    tell("GET /healthz/ready", *request(port, "GET", "/healthz/ready")[:2])
    status, body, _ = request(metrics_port, "GET", "/metrics")
    lines = [line for line in body.splitlines() if line.startswith("http_requests_total")]
    tell(f"GET 127.0.0.1:{metrics_port}/metrics", status, "\n".join(lines))
    found = next(line for line in log.read_text().splitlines() if request_id in line)
    print(f"\nThe log line of the first POST:\n{found}")


def tell(question: str, status: int, answer: str) -> None:
    print(f"\n{question}\n{status} {answer.strip()}")


def request(port: int, method: str, path: str, body: object = None) -> tuple[int, str, str]:
    """Status, body and request id of one request; the listener of metrics may take a second to be there."""
    for attempt in range(50):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers.get("X-Request-ID", "")
        except ConnectionError:
            if method != "GET" or path != "/metrics" or attempt == 49:
                raise
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError("unreachable")


if __name__ == "__main__":
    main()
