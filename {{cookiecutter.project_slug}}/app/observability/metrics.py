"""What is counted. `track` is called for every request by the request log; the rest is set where it changes.

A feature counts its own things with `exporter` (prometheus-flask-exporter's decorators) or the Prometheus client.
Gauges are of the "live" kinds: those of a worker that is gone do not count.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_flask_exporter import PrometheusMetrics

from app.observability import slots
from app.settings import ANSWERS, Settings

if not slots.is_open():
    # A command or a test counts for itself, also where PROMETHEUS_MULTIPROC_DIR names the folder for servers.
    values.ValueClass = values.MutexValue

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds, up to the request timeout

exporter = PrometheusMetrics(app=None, path=None, export_defaults=False)

REQUESTS = Counter("http_requests", "Requests answered.", ["route", "method", "status"])
DURATION = Histogram(
    "http_request_duration_seconds", "From the head to the last byte.", ["route", "method"], buckets=BUCKETS
)
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests being answered.", multiprocess_mode="livesum")
THREADS = Gauge("server_threads", "Threads that can answer requests.", multiprocess_mode="livesum")
THREADS_BUSY = Gauge("server_threads_busy", "Threads that have a connection.", multiprocess_mode="livesum")
DEPENDENCY_UP = Gauge(
    "dependency_up", "Readiness check well (1) or not (0).", ["name"], multiprocess_mode="livemostrecent"
)
INFO = Gauge("app_info", "What runs.", ["version", "template_version"], multiprocess_mode="livemax")


def init_app(settings: Settings) -> None:
    """Say what runs."""
    INFO.labels(settings.app_version, ANSWERS["template_version"]).set(1)


def track(route: str, method: str, status: str, seconds: float) -> None:
    """Count one answered request.

    Args:
        route: the URL rule, or "unmatched": a path as a client made it up would be a series of its own.
        method: as sent; what is no standard method is counted as OTHER.
        status: three digits.
        seconds: how long it took.
    """
    requests, duration = _series(route, method if method in METHODS else "OTHER", status)
    requests.inc()
    duration.observe(seconds)


@cache  # bounded by rules x methods x statuses; looking labels up costs more than counting
def _series(route: str, method: str, status: str) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(route, method, status), DURATION.labels(route, method)
