"""Servers that take what a service sends to others: traces (OTLP over HTTP) and what goes to Sentry."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


class Sink:
    """What arrived so far: paths and bodies, in order."""

    def __init__(self, host: str, port: int) -> None:
        self.address = host if port == 80 else f"{host}:{port}"
        self.received: list[tuple[str, bytes]] = []

    @property
    def otlp(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT that sends here."""
        return f"http://{self.address}"

    @property
    def dsn(self) -> str:
        """The value of SENTRY_DSN that sends here."""
        return f"http://key@{self.address}/1"

    def spans(self) -> list[dict[str, Any]]:
        """Every span, its attributes and those of its resource as plain values, ids in hexadecimal."""
        found = []
        for path, body in list(self.received):
            if path == "/v1/traces":
                for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for of_scope in of_resource.scope_spans:
                        for span in of_scope.spans:
                            found.append(
                                {
                                    "name": span.name,
                                    "kind": span.kind,
                                    "trace_id": span.trace_id.hex(),
                                    "span_id": span.span_id.hex(),
                                    "parent": span.parent_span_id.hex(),
                                    "attributes": plain(span.attributes),
                                    "events": [(event.name, plain(event.attributes)) for event in span.events],
                                    "status": (span.status.code, span.status.message),
                                    "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                                    "scope": of_scope.scope.name,
                                    "resource": plain(of_resource.resource.attributes),
                                }
                            )
        return found

    def items(self, kind: str) -> list[dict[str, Any]]:
        """Every item of this kind ("event" is an error, "transaction" a timed request) sent to Sentry."""
        return [item for header, item in self.envelopes() if header["type"] == kind]

    def envelopes(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Header and JSON of the items, with the envelope's `trace` header (sampling) added to theirs."""
        for path, body in list(self.received):
            if path.endswith("/envelope/"):
                head, _, rest = body.partition(b"\n")
                while rest:
                    line, _, rest = rest.partition(b"\n")
                    if header := json.loads(line or b"{}"):
                        payload, rest = rest[: header["length"]], rest[header["length"] + 1 :]
                        yield {**header, "trace": json.loads(head).get("trace")}, json.loads(payload)


def plain(attributes: Any) -> dict[str, Any]:
    """OpenTelemetry's attributes as a dictionary."""

    def value(any_value: AnyValue) -> Any:
        kind = any_value.WhichOneof("value")
        if kind == "array_value":
            return [value(item) for item in any_value.array_value.values]
        return getattr(any_value, kind) if kind else None

    return {item.key: value(item.value) for item in attributes}


@contextmanager
def sink(host: str = "127.0.0.1", port: int = 0, delay: float = 0.0) -> Iterator[Sink]:
    """A sink on a free port, unless one is named, which answers after `delay` seconds."""
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: two would wait 40 ms for each other

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            release.wait(delay)
            into.received.append((self.path, body))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Nobody asks."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that was killed is no news."""

    server = Server((host, port), Handler)
    server.daemon_threads = True
    into = Sink(host, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield into
    finally:
        release.set()
        server.shutdown()
        server.server_close()
        thread.join()
