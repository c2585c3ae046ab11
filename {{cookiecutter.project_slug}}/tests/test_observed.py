"""What is sent to others, in this process: spans are kept in memory, and what Sentry would send in a list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Blueprint, Response, g, jsonify
from sqlalchemy import text

from app.extensions import db

from .conftest import LogLines, MakeApp

CANARY = "canary-51c2"
trial = Blueprint("parcels", __name__)


@trial.post("/parcels/<int:number>")
def lose_parcel(number: int) -> Response:
    g.user_id = 7
    db.session.execute(text("SELECT 1"))
    raise LookupError(f"parcel {number} is lost")


@trial.get("/parcels")
def count_parcels() -> Response:
    return jsonify(count=db.session.execute(text("SELECT 1")).scalar_one())


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The errors and transactions that Sentry was to be sent."""
    import sentry_sdk
    from sentry_sdk.transport import HttpTransport

    found: list[dict[str, Any]] = []
    monkeypatch.setattr(
        HttpTransport, "capture_envelope", lambda _, envelope: found.extend(i.payload.json for i in envelope.items)
    )
    yield found
    sentry_sdk.get_global_scope().clear()
    sentry_sdk.get_global_scope().set_client(None)


def test_a_sampled_request_has_a_span_with_its_statement_below(make_app: MakeApp, log_lines: LogLines) -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    app = make_app(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_TRACES_SAMPLER_ARG="0")
    app.register_blueprint(trial)
    (exporter,) = app.extensions["exporters"]
    memory, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    exporter.layer.tracer = provider.get_tracer("test")
    try:
        app.test_client().get("/parcels")
        assert memory.get_finished_spans() == (), "one that is not sampled makes none"
        log_lines()
        app.test_client().get("/parcels", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    finally:
        RedisInstrumentor().uninstrument()
    spans = {span.name.partition(" ")[0]: span for span in memory.get_finished_spans()}
    assert spans["GET"].name == "GET /parcels"
    assert spans["SELECT"].parent == spans["GET"].context
    assert log_lines()[-1]["trace_id"] == "a" * 32
    assert spans["GET"].context is not None
    assert spans["GET"].context.trace_id == int("a" * 32, 16)


def test_an_error_says_which_request_and_whose_and_nothing_private(
    make_app: MakeApp, sent: list[dict[str, Any]]
) -> None:
    rates = {"SENTRY_TRACES_SAMPLE_RATE": "1", "SENTRY_PROFILES_SAMPLE_RATE": "0"}
    app = make_app(SENTRY_DSN="https://key@127.0.0.1/1", APP_VERSION="1.2.3", **rates)
    app.register_blueprint(trial)
    headers = {"X-Request-ID": "the-lost-one", "Cookie": CANARY, "Authorization": CANARY}
    app.test_client().post(f"/parcels/3?who={CANARY}", headers=headers, json={"who": CANARY})
    error, transaction = sent
    assert error["exception"]["values"][-1]["value"] == "parcel 3 is lost"
    assert (error["tags"]["request_id"], error["user"]) == ("the-lost-one", {"id": "7"})
    assert (error["transaction"], error["release"]) == ("parcels.lose_parcel", "1.2.3")
    assert transaction["transaction"] == "parcels.lose_parcel"
    assert [span["description"] for span in transaction["spans"]] == ["SELECT 1"]
    assert CANARY not in str(sent)
