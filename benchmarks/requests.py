"""CPU time a request against bare Flask: the service as it is, then with tracing and Sentry, layer by layer.

Under a server each has one gthread worker of four threads, held to one CPU as the default answers give it, and a database of
their own with the same rows. They take turns, in rounds short enough that whatever else runs here disturbs both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.common import APPS, ROOT, Row, median, promise, server
from benchmarks.traffic import request, send
from support.packages import stock_packages
from support.service import Service
from support.sink import sink

ROUTES = {
    "hello, a JSON literal": request("GET", "/hello"),
    "SELECT, a page of 20 items": request("GET", "/api/items"),
    "INSERT, one item": request("POST", "/api/items", b'{"name": "Bolt", "quantity": 3}'),
}
ROUNDS, REQUESTS, WARM_UP = 24, 400, 400
BOUND = 100.0  # microseconds that everything together adds to the smallest request
# Sentry's SDK knows its own requests by the host alone, and so at a default port only; at others it works for them as
# for the application's. Who may not have the port measures that too.
OF_THE_DEFAULT_PORT = ("127.77.0.1", 80) if os.geteuid() == 0 else ("127.0.0.1", 0)
CPUS = sorted(os.sched_getaffinity(0))


def measure() -> list[Row]:
    with ExitStack() as stack:
        collector = stack.enter_context(sink(*OF_THE_DEFAULT_PORT))
        tracing, sentry = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp}, {"SENTRY_DSN": collector.dsn}
        kinds = {
            "the service": {},
            "with tracing": tracing,
            "with Sentry, errors alone": sentry | {"SENTRY_TRACES_SAMPLE_RATE": "0"},
            "with Sentry": sentry,
            "everything on": tracing | sentry,
            "everything on, and Sentry times 5 % too": tracing | sentry | {"SENTRY_TRACES_SAMPLE_RATE": "0.05"},
            "the stock integrations, as that": tracing
            | sentry
            | {"STOCK": "1", "SENTRY_TRACES_SAMPLE_RATE": "0.05", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
            | {"OTEL_TRACES_SAMPLER_ARG": "0.05"},
        }
        rows = [row for kind, settings in kinds.items() for row in in_process(kind, settings)]
        services = {"bare Flask": stack.enter_context(on_one_cpu(server("bare")))}
        for kind in ("the service", "everything on"):
            services[kind] = stack.enter_context(on_one_cpu(server("gthread", settings=kinds[kind])))
        for service in services.values():
            for message in reversed(ROUTES.values()):  # the list has items then
                send(service.port, message, WARM_UP)
        return rows + [row for what, message in ROUTES.items() for row in compare(what, message, services)]


def compare(what: str, message: bytes, services: dict[str, Service], count: int = ROUNDS) -> Iterator[Row]:
    """A row for each service but the first, which the others are held against, of so many rounds."""
    rounds = [{kind: load(service, message) for kind, service in services.items()} for _ in range(count)]
    names = iter(services)
    base = next(names)
    bare, bare_rate = (median(values) for values in zip(*(found[base] for found in rounds), strict=True))
    for kind in names:
        own, rate = (median(values) for values in zip(*(found[kind] for found in rounds), strict=True))
        added = median(found[kind][0] - found[base][0] for found in rounds)
        yield Row(
            f"{what}: {kind}",
            f"{own:.0f} µs, {rate:,.0f} a second",
            f"{base} {bare:.0f} µs, {bare_rate:,.0f} a second",
            f"{own / bare:.2f}",
            f"adds {added:.0f} µs",
        )


@contextmanager
def on_one_cpu(service: Service) -> Iterator[Service]:
    """Start it on the first CPU, and leave the others to the clients."""
    os.sched_setaffinity(0, CPUS[:1])
    service.start()
    os.sched_setaffinity(0, CPUS[1:] or CPUS)
    try:
        service.wait_until_live()
        yield service
    finally:
        service.clean_up()
        os.sched_setaffinity(0, CPUS)


def load(service: Service, message: bytes) -> tuple[float, float]:
    """Microseconds of CPU a request, and requests a second."""
    before = cpu_seconds(service)
    seconds = send(service.port, message, REQUESTS)
    return (cpu_seconds(service) - before) / REQUESTS * 1e6, REQUESTS / seconds


def cpu_seconds(service: Service) -> float:
    """The CPU time that its workers have had: utime and stime of /proc/PID/stat, but to the nanosecond."""
    tasks = [task for pid in service.workers() for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def in_process(kind: str, settings: dict[str, str]) -> Iterator[Row]:
    """The same hello without a server, in a process of its own for each kind; the threads that send are in it."""
    service = server("gthread", settings=settings)
    service.metrics_base.mkdir()
    shutil.copy(ROOT / "tests" / "support" / "stock_app.py", APPS)
    command = [service.venv / "bin" / "python", APPS / "layers.py"]
    paths = [str(service.folder), *([str(stock_packages(service.venv))] if "STOCK" in settings else [])]
    environ = {**service.all_environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(command, env=environ, stdout=log, stderr=subprocess.PIPE, text=True, check=True)
    times: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    bare = times.pop("bare")
    for part, own in times.items():
        what = f"hello in process: {kind}" + (f" {part}" if part != "whole" else "")
        kept = f"; {promise(own - bare, BOUND, 'µs')}" if kind == "everything on" else ""
        yield Row(
            what, f"{own:.0f} µs", f"bare Flask {bare:.0f} µs", f"{own / bare:.2f}", f"adds {own - bare:.0f} µs{kept}"
        )
