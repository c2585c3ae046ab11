"""The peer of a rendered service: its features, observed as each library's own documentation says.

It runs in the service's folder. Nothing of the service's own layers is in it, except what they are told to keep
private.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from importlib import import_module

import sentry_sdk
from app import database, errors, health, register_features, security, serialize
from app.observability.sentry import PRIVATE
from app.settings import load_settings
from flask import Flask, Response, g, has_request_context, request
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_flask_exporter import PrometheusMetrics
from pythonjsonlogger.json import JsonFormatter
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration

settings = load_settings()
log = logging.getLogger("app.request")

handler = logging.StreamHandler(sys.stdout)
names = {"asctime": "ts", "levelname": "level", "name": "logger"}
handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names))
logging.basicConfig(level=settings.log_level, handlers=[handler])


def add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request.headers.get("X-Request-ID") if has_request_context() else None
    return True


handler.addFilter(add_request_id)

sentry_sdk.init(
    dsn=os.environ["SENTRY_DSN"],
    release=settings.app_version,
    environment=settings.app_env,
    traces_sample_rate=float(os.environ["SENTRY_TRACES_SAMPLE_RATE"]),
    data_collection=PRIVATE,
    integrations=[FlaskIntegration(), SqlalchemyIntegration()],
)

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
SQLAlchemyInstrumentor().instrument()

app = Flask("app")
FlaskInstrumentor().instrument_app(app)
PrometheusMetrics(app)
app.json = serialize.JSONProvider(app)
app.config.from_mapping(settings.flask_config())
app.extensions["settings"] = settings


@app.before_request
def begin() -> None:
    g.began = time.perf_counter()


@app.after_request
def tell(response: Response) -> Response:
    fields = {
        "method": request.method,
        "path": request.path,
        "route": request.url_rule.rule if request.url_rule else "unmatched",
        "status": response.status_code,
        "duration_ms": round((time.perf_counter() - g.began) * 1000, 1),
    }
    log.info("request", extra=fields)
    return response


errors.init_app(app)
security.init_app(app, settings)
database.init_app(app, settings)
health.init_app(app)
register_features(app)
app.register_blueprint(import_module("app.openapi").blueprint)
