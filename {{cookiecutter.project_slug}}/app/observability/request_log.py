"""One layer around the whole application: request id, security headers, log line and metrics of every request.

It is WSGI and not hooks of Flask: it sees every response, also those that no view made, and costs a fifth.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Flask, g

from app.clock import format_time, now
from app.observability import metrics
from app.observability.logs import request_id, to_json, trace_id, write_line
from app.security import HEADERS, TLS_HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# By their names as they are compared: small, since HTTP has no case.
PLAIN, OVER_TLS = ({name.lower(): (name, value) for name, value in headers} for headers in (HEADERS, TLS_HEADERS))
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
log = logging.getLogger("app.request")


def init_app(app: Flask) -> None:
    """Put the layer around `app`."""
    app.wsgi_app = RequestLog(app.wsgi_app)  # type: ignore[method-assign]


class RequestLog:
    """The WSGI layer; each call makes one `Exchange`."""

    def __init__(self, inner: WSGIApplication) -> None:
        self.inner = inner

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        exchange = Exchange(environ, start_response)
        try:
            exchange.body = self.inner(environ, exchange.start_response)
        except BaseException:
            exchange.close()
            raise
        return exchange


class Exchange:
    """One request and its response; as an iterable it is the response's body."""

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.started = time.perf_counter()
        self.environ = environ
        self.start_outer_response = start_response
        self.body: Iterable[bytes] = ()
        self.status, self.route, self.user_id, self.quiet = "500", "unmatched", None, False
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        self.id = sent if ACCEPTED_ID.fullmatch(sent) else os.urandom(16).hex()
        request_id.set(self.id)
        metrics.IN_FLIGHT.inc()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        # The request's context stands while this runs; by the time of close() it is gone.
        self.status = status[:3]
        request = self.environ.get("werkzeug.request")
        if request is not None:
            self.user_id = g.get("user_id")
            if request.url_rule is not None:
                self.route, self.quiet = request.url_rule.rule, request.blueprint == "health"
        ours = OVER_TLS if self.environ["wsgi.url_scheme"] == "https" else PLAIN
        present = {name.lower() for name, _ in headers}
        if present.isdisjoint(ours):
            headers += ours.values()
        else:
            headers += [header for name, header in ours.items() if name not in present]
        headers.append(("X-Request-ID", self.id))
        return self.start_outer_response(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        """The server has sent the last byte, or given up: count the request and write its line."""
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            seconds = time.perf_counter() - self.started
            metrics.IN_FLIGHT.dec()
            metrics.track(self.route, self.environ["REQUEST_METHOD"], self.status, seconds)
            if not self.quiet and log.isEnabledFor(logging.INFO):
                write_line(to_json(self.describe(seconds)))
            request_id.set("")
            trace_id.set("")

    def describe(self, seconds: float) -> dict[str, object]:
        """The fields of the request's log line."""
        path = self.environ.get("PATH_INFO", "")
        return {
            "ts": format_time(now()),
            "level": "INFO",
            "logger": log.name,
            "message": "request",
            "request_id": self.id,
            "method": self.environ["REQUEST_METHOD"],
            "path": path.encode("latin-1").decode("utf-8", "replace"),
            "route": self.route,
            "status": int(self.status),
            "duration_ms": round(seconds * 1000, 1),
            "user_id": self.user_id,
            "trace_id": trace_id.get() or None,
        }
