"""What is sent to others: traces over OTLP, errors to Sentry. Real servers take it, each class of workers sends it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot.conftest import Start, prepare
from support.service import Service, free_port, wait_for
from support.sink import Sink, sink

SERVER, CLIENT = 2, 3  # kinds of spans, by opentelemetry/proto/trace/v1/trace.proto
CANARY = "canary-7d1f"


@pytest.fixture
def collector() -> Iterator[Sink]:
    with sink() as collector:
        yield collector


def tracing(collector: Sink, **environ: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp, "OTEL_TRACES_SAMPLER_ARG": "1", **environ}


def stop(service: Service) -> float:
    """The seconds that a stop takes."""
    began = time.monotonic()
    assert service.stop() == 0
    return time.monotonic() - began


# Traces


def test_the_statement_of_a_request_is_a_span_under_its_own(start: Start, collector: Sink) -> None:
    service = start(**tracing(collector))
    answer = service.get("/api/items", {"X-Request-ID": "trace-trace"})
    assert answer.status == 200
    logged = service.wait_for_log(request_id="trace-trace")["trace_id"]
    assert service.stop() == 0
    spans = [span for span in collector.spans() if span["trace_id"] == logged]
    (request,) = [span for span in spans if span["kind"] == SERVER]
    (statement,) = [span for span in spans if span["name"].startswith("SELECT")]
    assert (request["name"], request["parent"]) == ("GET /api/items", "")
    assert request["attributes"]["http.route"] == "/api/items"
    assert (statement["kind"], statement["parent"]) == (CLIENT, request["span_id"])
    assert "FROM items" in statement["attributes"]["db.statement"]
    assert request["resource"]["service.name"] == "my-service"
    assert request["resource"]["service.version"] == "dev"


@pytest.mark.default_class
def test_a_command_of_redis_is_a_span_under_its_request(start: Start, collector: Sink, redis_url: str) -> None:
    service = start(**tracing(collector, REDIS_URL=redis_url))
    assert service.get("/trial/redis").json == {"count": 1}
    assert service.stop() == 0
    spans = {span["span_id"]: span for span in collector.spans()}
    (command,) = [span for span in spans.values() if span["name"] == "INCRBY"]
    assert spans[command["parent"]]["name"] == "GET /trial/redis"


@pytest.mark.default_class
def test_an_error_is_in_the_span_and_its_trace_in_the_problem(start: Start, collector: Sink) -> None:
    service = start(**tracing(collector))
    problem = service.request("POST", "/trial/lose/socks", b"x").json
    assert service.stop() == 0
    (span,) = [span for span in collector.spans() if span["kind"] == SERVER]
    assert span["trace_id"] == problem["trace_id"]
    assert span["status"][0] == 2, "an error, by the same file"
    (event,) = span["events"]
    assert event[0] == "exception"
    assert event[1]["exception.message"] == "lost socks of 1"


@pytest.mark.default_class
def test_a_caller_decides_whether_its_request_is_sampled(start: Start, collector: Sink) -> None:
    service = start(**tracing(collector, OTEL_TRACES_SAMPLER_ARG="0", OTEL_TRACES_SAMPLER=""))  # empty is unset
    for trace, flag in (("1" * 32, "01"), ("2" * 32, "00")):
        service.get("/api/items", {"traceparent": f"00-{trace}-{'3' * 16}-{flag}", "X-Request-ID": f"sampled-{flag}"})
        assert service.wait_for_log(request_id=f"sampled-{flag}")["trace_id"] == trace
    for _ in range(20):
        service.get("/api/items")
        service.get("/api/items", {"baggage": "color=red", "traceparent": "no decision"})
    assert service.stop() == 0
    (request,) = [span for span in collector.spans() if span["kind"] == SERVER]
    assert (request["trace_id"], request["parent"]) == ("1" * 32, "3" * 16)
    assert {span["trace_id"] for span in collector.spans()} == {"1" * 32}, "nothing is made for the others"


def test_every_worker_sends_the_spans_of_each_of_its_requests(start: Start, collector: Sink) -> None:
    service = start(**tracing(collector, GUNICORN_CMD_ARGS="--max-requests 20 --max-requests-jitter 5"))
    pids: list[int] = []

    def ask() -> bool:
        pids.append(service.get("/trial/client").json["pid"])
        return len(set(pids)) > 3

    wait_for(ask, "workers were replaced")
    assert service.stop() == 0
    names = [span["name"] for span in collector.spans() if span["kind"] == SERVER]
    assert names == ["GET /trial/client"] * len(pids)


@pytest.mark.default_class
def test_probes_are_not_traced_and_nor_is_what_they_ask(start: Start, collector: Sink) -> None:
    service = start(**tracing(collector))
    assert service.get("/healthz/ready").status == 200
    service.get("/healthz/live")
    assert service.stop() == 0
    assert collector.spans() == []


@pytest.mark.parametrize("how", ["refused", "frozen"])
def test_a_collector_that_is_gone_changes_neither_answers_nor_a_stop(start: Start, how: str) -> None:
    def slowest(service: Service) -> float:
        times = []
        for _ in range(50):
            began = time.monotonic()
            assert service.get("/api/items").status == 200
            times.append(time.monotonic() - began)
        return max(times)

    with sink(delay=60) as frozen:
        endpoint = frozen.otlp if how == "frozen" else f"http://127.0.0.1:{free_port()}"
        service = start(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_TRACES_SAMPLER_ARG="1", OTEL_BSP_SCHEDULE_DELAY="50")
        without = start()
        assert slowest(service) < slowest(without) + 0.5
        assert stop(service) < stop(without) + 1
        if how == "frozen":
            assert frozen.received == []


# Sentry


def test_every_error_arrives_also_the_last_ones_before_a_stop(start: Start, collector: Sink) -> None:
    service = start(SENTRY_DSN=collector.dsn)
    for number in range(100):
        assert service.request("POST", f"/trial/lose/n{number}", b"x").status == 500
    assert service.stop() == 0
    values = [event["exception"]["values"][-1]["value"] for event in collector.items("event")]
    assert sorted(values) == sorted(f"lost n{number} of 1" for number in range(100))


def test_an_error_says_which_request_whose_and_of_which_release_and_nothing_private(
    start: Start, collector: Sink
) -> None:
    service = start(SENTRY_DSN=collector.dsn, SENTRY_TRACES_SAMPLE_RATE="1", APP_VERSION="1.2.3")
    headers = {
        "X-Request-ID": "sentry-sentry",
        "Cookie": f"session={CANARY}",
        "Authorization": f"Bearer {CANARY}",
        "X-Forwarded-For": CANARY,
        "X-Whatever": CANARY,
        "Content-Type": "application/json",
    }
    body = json.dumps({"name": CANARY}).encode()
    assert service.request("POST", f"/trial/lose/socks?email={CANARY}", body, headers).status == 500
    service.request("POST", f"/api/items?email={CANARY}", body, headers)
    assert service.stop() == 0
    (event,) = collector.items("event")
    assert event["tags"]["request_id"] == "sentry-sentry"
    assert event["user"] == {"id": "user-7"}
    assert (event["release"], event["environment"]) == ("1.2.3", "development")
    assert event["transaction"] == "trial.lose"
    assert event["request"]["url"].endswith("/trial/lose/socks")
    timed = {item["transaction"]: item for item in collector.items("transaction")}
    assert timed["trial.lose"]["contexts"]["trace"]["trace_id"] == event["contexts"]["trace"]["trace_id"]
    assert timed["items.create_item"]["spans"], "its statement"
    assert not [path for path, sent in collector.received if CANARY.encode() in sent]


def test_an_error_knows_nothing_of_the_requests_before_it(start: Start, collector: Sink) -> None:
    """Threads live on: what Sentry gathers on one must not tell of another client's request."""
    service = start(SENTRY_DSN=collector.dsn, SENTRY_TRACES_SAMPLE_RATE="0", WEB_CONCURRENCY="1")
    for number in range(20):
        service.get(f"/api/items?limit={number + 1}")
        service.get("/trial/trace")
    assert service.stop() == 0
    events = collector.items("event")
    assert len(events) == 20
    assert all(event["transaction"] == "trial.trace" for event in events)
    assert not any("items" in json.dumps(event.get("breadcrumbs", {})) for event in events)
    assert len({event["contexts"]["trace"]["trace_id"] for event in events}) == 20
    assert collector.items("transaction") == []


@pytest.mark.default_class
def test_the_rate_that_sentry_is_told_is_the_one_that_was_set(start: Start, collector: Sink) -> None:
    """It extrapolates by it."""
    service = start(SENTRY_DSN=collector.dsn, SENTRY_TRACES_SAMPLE_RATE="0.5")
    for _ in range(40):
        service.get("/trial/client")
    service.get("/trial/client", {"sentry-trace": f"{'4' * 32}-{'5' * 16}-1"})
    assert service.stop() == 0
    sampled = [header["trace"] for header, _ in collector.envelopes() if header["type"] == "transaction"]
    own = [trace for trace in sampled if trace["trace_id"] != "4" * 32]
    assert 4 < len(own) < 36, "of 40; one run in ten million fails"
    assert {trace["sample_rate"] for trace in own} == {"0.5"}
    assert all(float(trace["sample_rand"]) < 0.5 for trace in own)
    assert len(sampled) == len(own) + 1, "a caller that sampled its own is followed"


def test_a_sentry_that_is_gone_changes_no_answer_and_delays_a_stop_by_two_seconds_at_most(start: Start) -> None:
    with sink(delay=60) as frozen:
        service = start(SENTRY_DSN=frozen.dsn)
        without = start()
        for _ in range(20):
            assert service.request("POST", "/trial/lose/socks", b"x").status == 500
        assert stop(service) < stop(without) + 3


# What is off


def test_nothing_is_imported_that_is_off(folder: Path, venv: Path, tmp_path: Path, variant: str) -> None:
    off = ["opentelemetry", "sentry_sdk", "redis", "alembic", "flask_migrate", "psycopg", "requests", "urllib3"]
    off += ["flask_session", "flask_wtf", "app.database.replica", "app.preflight"]
    off += ["gevent"] if variant != "gevent" else []
    script = (
        "import json, sys, wsgi; print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))"
    )
    environ = prepare(folder, venv, tmp_path, {}).all_environ
    command = [str(venv / "bin" / "python"), "-c", script]
    done = subprocess.run([*command, json.dumps(off)], cwd=folder, env=environ, capture_output=True, check=True)
    assert json.loads(done.stdout) == []
    seeded = {**environ, "SENTRY_DSN": "https://key@127.0.0.1/1"}
    done = subprocess.run([*command, json.dumps(off)], cwd=folder, env=seeded, capture_output=True, check=True)
    assert "sentry_sdk" in json.loads(done.stdout), "the same question finds what is on"
