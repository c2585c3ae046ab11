"""From the exec of `gunicorn` to the first 200 of /healthz/live, and what is imported before."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping

from benchmarks.common import Row, median, promise, run, server

WORKERS, ROUNDS, BOUND, IMPORT_BOUND = 2, 7, 1.0, 0.5  # seconds
ON = {"SENTRY_DSN": "http://key@127.0.0.1/1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
KINDS = ("gthread", "sync", "gevent", "asgi", "hello")
IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def measure() -> list[Row]:
    rounds = [{kind: start(kind) for kind in KINDS} for _ in range(ROUNDS + 1)]
    found = {kind: median(seconds[kind] for seconds in rounds[1:]) for kind in KINDS}  # the first writes bytecode
    bare = found.pop("hello")
    rows = [
        Row(
            f"{kind}, {WORKERS} workers: exec to the first 200",
            f"{seconds:.2f} s",
            f"bare Flask under stock gthread {bare:.2f} s",
            f"{seconds / bare:.2f}",
            promise(seconds, BOUND, "s"),
        )
        for kind, seconds in found.items()
    ]
    rounds_of_imports = [(import_time("wsgi"), import_time("wsgi", ON), import_time("flask")) for _ in range(ROUNDS)]
    ours, everything, flask = (median(seconds) for seconds in zip(*rounds_of_imports, strict=True))
    for what, seconds in (("`import wsgi`", ours), ("`import wsgi` with tracing and Sentry on", everything)):
        kept = promise(seconds, IMPORT_BOUND, "s") if seconds is ours else ""
        rows.append(Row(what, f"{seconds:.2f} s", f"`import flask` {flask:.2f} s", f"{seconds / flask:.2f}", kept))
    return rows


def start(kind: str) -> float:
    service = server(kind, WORKERS)
    began = time.perf_counter()
    service.start()
    try:
        while True:
            with contextlib.suppress(ConnectionError):
                assert service.get("/healthz/live").status == 200
                return time.perf_counter() - began
            assert service.process.poll() is None, service.errors.read_text()
            time.sleep(0.002)
    finally:
        service.signal(signal.SIGKILL)  # its children are ended by clean_up; a graceful stop takes a second
        service.clean_up()


def import_time(module: str, settings: Mapping[str, str] | None = None) -> float:
    """Seconds, in a Python that has started already."""
    service = server("gthread", settings=settings)
    return float(
        run([service.venv / "bin" / "python", "-c", IMPORT.format(module)], service.folder, service.all_environ)
    )
