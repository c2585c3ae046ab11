"""A rendered service as a running process, spoken to as its clients, its operator and its platform do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECRET_KEY = "Zk3vQ9xWm2Lr8TtYb5NcJh7PfDs4Ga6E"
# What a test must not inherit from whoever runs it.
OWN = re.compile(
    r"^(API_|APP_|SECRET_|DATABASE_|REDIS_|RATELIMIT_|GUNICORN_|METRICS_|PROMETHEUS_|TRUSTED_|READINESS_|SCRIPT_NAME|WEB_CONCURRENCY"
    r"|PORT|LOG_LEVEL|MAX_CONTENT_LENGTH|OTEL_|SENTRY_|VIRTUAL_ENV|MAKE|MFLAGS|FLASK_)"
)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def clean_environ(**values: str) -> dict[str, str]:
    """The caller's environment without what configures a service, then `values`."""
    inherited = {name: value for name, value in os.environ.items() if not OWN.match(name)}
    return {**inherited, "PYTHONDONTWRITEBYTECODE": "1", **values}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """The first true value of `condition`; it fails with `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)
    return value


@dataclass
class Answer:
    """A response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Whoever speaks to a service at `host` and `port`, and reads its log."""

    host: str = "127.0.0.1"
    port: int

    def log(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def connect(self, timeout: float = 20) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        connection.connect()
        return connection

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 20
    ) -> Answer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        sent = {"Connection": "close", **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body, sent = json.dumps(body).encode(), {"Content-Type": "application/json", **sent}
        connection = self.connect(timeout)
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError):  # refused before all of it was sent: the answer is there
                connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None, timeout: float = 20) -> Answer:
        return self.request("GET", path, None, headers, timeout)

    def wait_for_log(self, **fields: object) -> dict[str, Any]:
        """The first log line with these fields; a string is a pattern."""

        def matches(line: dict[str, Any]) -> bool:
            return all(
                re.search(want, str(line.get(name))) if isinstance(want, str) else line.get(name) == want
                for name, want in fields.items()
            )

        found: dict[str, Any] = wait_for(
            lambda: next((line for line in self.log() if matches(line)), None), f"a log line with {fields}"
        )
        return found


@dataclass
class Service(Client):
    """One server start. Use it as a context: whatever happens, its processes are gone afterwards.

    Attributes:
        folder: the rendered service.
        venv: its environment.
        state: a folder of this start's own, for its database and its output.
        environ: what is set beyond the defaults of a test; None takes a default away.
        cgroup: a control group to start in.
    """

    folder: Path
    venv: Path
    state: Path
    environ: Mapping[str, str | None] = field(default_factory=dict)
    cgroup: Path | None = None

    def __post_init__(self) -> None:
        self.port, self.metrics_port = int(self.environ.get("PORT") or free_port()), free_port()
        self.output, self.errors = self.state / "stdout", self.state / "stderr"
        self.metrics_base = self.state / "metrics"
        values = {
            "APP_ENV": "development",
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": f"sqlite:///{self.state / 'app.db'}",
            "PORT": str(self.port),
            "METRICS_PORT": str(self.metrics_port),
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics_base),
            "WEB_CONCURRENCY": "2",
            "RATELIMIT_WRITES": "1000000 per second",  # every test is the same client
            **self.environ,
        }
        self.all_environ = clean_environ(**{name: value for name, value in values.items() if value is not None})

    def __enter__(self) -> Service:
        self.start()
        self.wait_until_live()
        return self

    def __exit__(self, *_: object) -> None:
        self.clean_up()

    # Starting and stopping

    def flask(self, *arguments: str) -> None:
        """Run a `flask` command."""
        command = [str(self.venv / "bin" / "flask"), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.all_environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        with self.output.open("ab") as output, self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [self.venv / "bin" / "gunicorn"],
                cwd=self.folder,
                env=self.all_environ,
                stdout=output,
                stderr=errors,
                start_new_session=True,
                preexec_fn=self._enter_cgroup,
            )

    def _enter_cgroup(self) -> None:
        if self.cgroup is not None:
            (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))

    def wait_until_live(self) -> None:
        def live() -> bool:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.errors.read_text()}"
            with contextlib.suppress(OSError):
                return self.get("/healthz/live").status == 200
            return False

        wait_for(live, "the service answers")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def clean_up(self) -> None:
        """End it as Ctrl-C does: whoever is interested in a stop has stopped it."""
        if self.process.poll() is None:
            self.signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        for pid in self.session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    # Processes

    def session(self) -> list[int]:
        """Every living process that this start made, orphans too: they share its session."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(stat.parent.name))
        return found

    def command_line(self, pid: int) -> str:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return ""

    def listeners(self) -> list[int]:
        """The processes that answer Prometheus."""
        return [pid for pid in self.session() if "app.observability.serve" in self.command_line(pid)]

    def workers(self) -> set[int]:
        """The worker processes that have booted."""
        return {pid for pid in self.session() if self.command_line(pid).startswith("gunicorn: worker")}

    def wait_for_workers(self, count: int, without: set[int] | None = None) -> set[int]:
        """The workers, when there are `count` of them and none of `without`."""

        def complete() -> set[int] | None:
            workers = self.workers()
            return workers if len(workers) == count and not workers & (without or set()) else None

        found: set[int] = wait_for(complete, f"{count} workers, none of {without}")
        return found

    # What an operator sees

    def log(self) -> list[dict[str, Any]]:
        """Every whole line of standard output; one that is not JSON fails the test."""
        lines = self.output.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def metrics(self) -> Metrics:
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return Metrics(connection.getresponse().read().decode())

    def wait_for_metrics(self, condition: Callable[[Metrics], bool], what: str) -> Metrics:
        def scrape() -> Metrics | None:
            with contextlib.suppress(OSError):
                metrics = self.metrics()
                return metrics if condition(metrics) else None
            return None

        found: Metrics = wait_for(scrape, what)
        return found


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text

    def samples(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of every sample with this name."""
        for line in self.text.splitlines():
            if match := re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line):
                yield dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")), float(match[2])

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(value for found, value in self.samples(name) if labels.items() <= found.items())
