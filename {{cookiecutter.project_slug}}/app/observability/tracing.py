"""Traces by OpenTelemetry, sent as OTLP (http/protobuf); imported only where an endpoint is set.

The stock instrumentation does most of its work for every request and statement, also for the 19 of 20 that are not
sampled. Here that is decided first: a request that is not sampled gets the id of a trace, for its log lines and for
whatever it calls, and nothing else is done for it. A sampled one has the spans that the stock instrumentation makes.
The SDK reads the other standard variables of OpenTelemetry itself.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, got_request_exception
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation import wsgi
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer, _wrap_connect
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased

from app.extensions import db
from app.observability import PROBES
from app.observability.logs import trace_id
from app.settings import ANSWERS, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def init_app(app: Flask, settings: Settings) -> None:
    """Have requests, statements and Redis commands make spans; they are sent once `Exporter.start` was called."""
    layer = Tracing(app.wsgi_app, 1.0 if names_sampler() else settings.traces_ratio)
    app.wsgi_app = layer  # type: ignore[method-assign]
    app.extensions["exporters"].append(Exporter(settings, layer))
    got_request_exception.connect(record_exception, app)
    RedisInstrumentor().instrument()
    with app.app_context():
        for engine in db.engines.values():
            trace_statements(engine, trace.get_tracer(__name__))


def names_sampler() -> bool:
    """Whether the environment names one of the SDK's samplers; it is asked about every request then, which costs more."""
    return bool(os.environ.get("OTEL_TRACES_SAMPLER"))


class Exporter:
    """What collects finished spans and sends them, in a thread of its own that a fork would not survive.

    Attributes:
        patience: seconds that a stop waits for `flush`; the collector is near, and one that is gone holds up nobody.
    """

    patience = 0.5

    def __init__(self, settings: Settings, layer: Tracing) -> None:
        self.settings, self.layer = settings, layer
        self.processor: BatchSpanProcessor | None = None

    def __str__(self) -> str:
        host = urlsplit(self.settings.traces_endpoint or "").netloc.rpartition("@")[2]
        return f"traces of {self.settings.traces_ratio:g} of the requests to {host}, {self.settings.otlp_protocol}"

    def start(self) -> None:
        """Begin to collect; a worker calls this after the fork."""
        settings = self.settings
        about = {
            "service.name": settings.service_name or ANSWERS["slug"],
            "service.version": settings.app_version,
            "deployment.environment.name": settings.app_env,
        }
        resource = Resource.create(about)
        self.processor = BatchSpanProcessor(OTLPSpanExporter(settings.traces_endpoint))
        if names_sampler():
            everywhere = requests = TracerProvider(resource=resource, shutdown_on_exit=False)
        else:
            everywhere = TracerProvider(ParentBased(TraceIdRatioBased(settings.traces_ratio)), resource, False)
            requests = TracerProvider(ParentBased(ALWAYS_ON), resource, False)  # of those, the layer has drawn
            requests.add_span_processor(self.processor)
        everywhere.add_span_processor(self.processor)
        trace.set_tracer_provider(everywhere)
        self.layer.tracer = requests.get_tracer(__name__)

    def flush(self) -> None:
        """Send what is left, however long that takes."""
        if self.processor is not None:
            self.processor.force_flush()


class Tracing:
    """The WSGI layer around the application.

    Attributes:
        ratio: the share of requests to sample, of those whose callers have not decided.
        tracer: makes the spans of those that are.
    """

    tracer: trace.Tracer = trace.NoOpTracer()

    def __init__(self, inner: WSGIApplication, ratio: float) -> None:
        self.inner, self.ratio = inner, ratio
        fields = propagate.get_global_textmap().fields
        self.headers = {"HTTP_" + field.upper().replace("-", "_") for field in fields}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].startswith(PROBES):
            return self.inner(environ, start_response)
        # An empty context to begin with: that of the last request on this thread is never detached, only replaced.
        parent, decided = Context(), False
        if not self.headers.isdisjoint(environ):
            parent = propagate.extract(environ, parent, wsgi.wsgi_getter)
            decided = trace.get_current_span(parent).get_span_context().is_valid
        if decided or random.random() < self.ratio:  # noqa: S311
            span = self.tracer.start_span(environ["REQUEST_METHOD"], parent, trace.SpanKind.SERVER)
        else:
            ids = trace.SpanContext(random.getrandbits(128), random.getrandbits(64), is_remote=False)
            span = trace.NonRecordingSpan(ids)
        attach(trace.set_span_in_context(span, parent))
        trace_id.set(trace.format_trace_id(span.get_span_context().trace_id))
        if not span.is_recording():
            return self.inner(environ, start_response)
        return Traced(span, self.inner, environ, start_response)


class Traced:
    """A request that is sampled, and its response; as an iterable it is the response's body."""

    def __init__(
        self, span: Any, inner: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self.span, self.environ, self.start_outer_response = span, environ, start_response
        span.update_name(wsgi.get_default_span_name(environ))
        span.set_attributes(wsgi.collect_request_attributes(environ))
        span.set_attributes(wsgi.collect_custom_request_headers_attributes(environ))
        self.body: Iterable[bytes] = ()
        try:
            self.body = inner(environ, self.start_response)
        except BaseException:
            self.close()
            raise

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        request = self.environ.get("werkzeug.request")
        if request is not None and request.url_rule is not None:
            self.span.update_name(f"{request.method} {request.url_rule.rule}")
            self.span.set_attribute("http.route", request.url_rule.rule)
        failure = self.span.status  # with its exception, and the next line would replace it
        wsgi.add_response_attributes(self.span, status, headers)
        if failure.description:
            self.span.set_status(failure)
        self.span.set_attributes(wsgi.collect_custom_response_headers_attributes(headers))
        return self.start_outer_response(status, headers, exc_info)

    def __iter__(self) -> Any:
        return iter(self.body)

    def close(self) -> None:
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            self.span.end()


def record_exception(sender: Flask, exception: BaseException, **_: Any) -> None:
    """Put an unhandled exception into the request's span."""
    span = trace.get_current_span()
    span.record_exception(exception)
    span.set_status(trace.StatusCode.ERROR, f"{type(exception).__name__}: {exception}")


def trace_statements(engine: Any, tracer: trace.Tracer) -> None:
    """Have `engine` make the stock spans, for connections and statements of requests that are sampled."""
    Statements(tracer, engine, None)  # type: ignore[no-untyped-call]
    plain, traced = engine.connect, _wrap_connect(tracer)  # type: ignore[no-untyped-call]

    def connect() -> Any:
        return traced(plain, engine, (), {}) if trace.get_current_span().is_recording() else plain()

    engine.connect = connect


class Statements(EngineTracer):
    """The stock instrumentation, which would work as hard for statements that it makes no span of."""

    def _before_cur_exec(self, conn: Any, cursor: Any, statement: Any, params: Any, *rest: Any) -> Any:
        if not trace.get_current_span().is_recording():
            return statement, params
        return super()._before_cur_exec(conn, cursor, statement, params, *rest)  # type: ignore[no-untyped-call]

    def _add_idle_to_connection_usage(self, value: int) -> None:
        """The pool is counted for OpenTelemetry's metrics, which are not used here."""

    _add_used_to_connection_usage = _add_idle_to_connection_usage
