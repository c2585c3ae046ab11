"""What an operator sees is what the stock integrations show of the same traffic, field by field.

The service does less for each request than Flask's instrumentations of OpenTelemetry and Sentry, the exporter of
Prometheus and a JSON formatter do. Here a peer with those (`support/stock_app.py`) and the service answer the same
requests, once with all of them sampled and once with none. Whatever then differs stands in `DELIBERATE`.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.packages import stock_packages
from support.service import Service
from support.sink import Sink, sink
from support.template import ROOT, Render

OURS, STOCK, BOTH = "only ours has", "only stock has", "differs"


class Difference(NamedTuple):
    """Who has what the other one does not have, or has otherwise; fields by their path, with `*` for any; and why."""

    who: str
    fields: str
    reason: str


ONE_PROCESS = "of one process; where workers share their counts the client has none"
DELIBERATE = [
    Difference(STOCK, "*/probe", "probes are no traffic: they are counted, and neither logged, traced nor timed"),
    Difference(STOCK, "*/start", "as before: the probe that said that it was up; and metrics have a port of their own"),
    # Log
    Difference(BOTH, "*/log/*/ts", "ISO 8601 in UTC, not local time without a zone"),
    Difference(OURS, "*/log/*/trace_id", "leads from a line to its trace"),
    Difference(OURS, "*/log/*/user_id", "whose request it was"),
    Difference(BOTH, "*/stream/0/with the body", "a request lasts until the last byte is sent, not the first"),
    # Metrics
    Difference(OURS, "*/metrics/labels/*/route", "routes are few; the stock histogram has a series for each path"),
    Difference(STOCK, "*/metrics/labels/count/path", "as before"),
    Difference(
        STOCK, "*/metrics/labels/count/status", "a histogram for each status is ten series more; the total has it"
    ),
    Difference(OURS, "*/metrics/*/OTHER *", "a method as a client made it up would be a series of its own"),
    Difference(STOCK, "*/metrics/*/BREW *", "as before"),
    Difference(STOCK, "*/metrics/families/http_request_exceptions_total", "they are the totals of status 500"),
    Difference(STOCK, "*/metrics/families/exporter_info", "app_info says what runs"),
    Difference(STOCK, "*/metrics/families/*_created", ONE_PROCESS),
    Difference(STOCK, "*/metrics/families/process_*", ONE_PROCESS),
    Difference(STOCK, "*/metrics/families/python_*", ONE_PROCESS),
    # Spans
    Difference(BOTH, "*/spans/*/scope", "it names who made the span"),
    Difference(OURS, "*/spans/*/resource/service.version", "set without OTEL_RESOURCE_ATTRIBUTES"),
    Difference(OURS, "*/spans/*/resource/deployment.environment.name", "as before"),
    # Sentry
    Difference(BOTH, "*/sentry/*/sdk/name", "it names who made the event"),
    Difference(STOCK, "*/sentry/*/sdk/integrations/flask", "ours is in its place"),
    Difference(STOCK, "*/sentry/*/sdk/integrations/redis", "Redis is traced by OpenTelemetry only"),
    Difference(STOCK, "*/sentry/*/sdk/integrations/atexit", "a stop sends what is left, without words on the terminal"),
    Difference(STOCK, "*/sentry/kinds/sessions", "release health: http_requests_total counts requests"),
    Difference(OURS, "*/sentry/*/tags", "request_id leads from an event to its log lines"),
    Difference(OURS, "*/sentry/*/tags/request_id", "as before"),
    Difference(OURS, "*/sentry/*/user", "whose request it was; stock asks Flask-Login, which is not here"),
    Difference(
        STOCK, "*/sentry/broken-stream/event/0/breadcrumbs/values/0", "the request's line comes after its last byte"
    ),
    # A request that is not drawn makes no transaction, which is where the saving is; what an error tells is its own.
    Difference(STOCK, "not sampled/sentry/exception*/event/0/contexts/trace/*", "no transaction, so none to describe"),
    Difference(STOCK, "not sampled/sentry/exception*/event/0/header/*", "as before"),
]


class Request(NamedTuple):
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}


JSON = "application/json"
TRAFFIC = {
    "create": Request("POST", "/api/items?source=shop", {"name": "socks", "quantity": 3}),
    "list": Request("GET", "/api/items?limit=5"),
    "read": Request("GET", "/api/items/1"),
    "change": Request("PATCH", "/api/items/1", {"quantity": 4}),
    "head": Request("HEAD", "/api/items/1"),
    "delete": Request("DELETE", "/api/items/1"),
    "missing": Request("GET", "/api/items/1"),
    "unmatched": Request("GET", "/no/such/p%C3%A4ge"),
    "method": Request("PUT", "/api/items", {}),
    "unknown-method": Request("BREW", "/api/items"),
    "options": Request("OPTIONS", "/api/items"),
    "media-type": Request("POST", "/api/items", b"socks", {"Content-Type": "text/plain"}),
    "invalid": Request("POST", "/api/items", {"name": 5}),
    "too-many": Request("GET", "/trial/teapot"),
    "exception": Request(  # JSON: what a form could send with our cookie has to bring a token
        "POST", "/trial/lose/socks?email=a", b"x", {"Cookie": "session=x", "Authorization": "x", "Content-Type": JSON}
    ),
    "exception-in-coroutine": Request("GET", "/trial/fail-async"),
    "broken-stream": Request("GET", "/trial/break-off"),
    "after-an-exception": Request("GET", "/api/items"),
    "traced": Request("GET", "/api/items", None, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}),
    "traced-not-sampled": Request("GET", "/api/items", None, {"traceparent": f"00-{'3' * 32}-{'4' * 16}-00"}),
    "timed": Request("GET", "/trial/trace", None, {"sentry-trace": f"{'5' * 32}-{'6' * 16}-1"}),
    "timed-not-sampled": Request("GET", "/trial/trace", None, {"sentry-trace": f"{'7' * 32}-{'8' * 16}-0"}),
    "timed-undecided": Request("GET", "/trial/trace", None, {"sentry-trace": f"{'9' * 32}-{'a' * 16}"}),
    "stream": Request("GET", "/trial/stream/3"),
    "static": Request("GET", "/static/app.css"),
    "page": Request("GET", "/", None, {"Accept": "text/html"}),
    "log-line": Request("GET", "/trial/tell"),
    "probe": Request("GET", "/healthz/ready"),
}
STREAMED = 0.3  # seconds that the body of "stream" takes
Seen = tuple[dict[str, Any], dict[str, Any]]
START = "start"  # what no request of TRAFFIC made
# These are others with each start; that they are there is compared.
VOLATILE = {
    *("event_id", "timestamp", "start_timestamp", "sample_rand", "duration_ms", "sys.argv"),
    *("thread.id", "thread.name", "net.peer.port", "service.instance.id", "asctime", "exception.stacktrace"),
}
STOCK_CONFIG = 'wsgi_app = "stock_app:app"\nworker_class = "gthread"\nthreads = 4\ncontrol_socket_disable = True\n'


@pytest.fixture(scope="module")
def seen(render: Render, venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What was sent and written of the traffic: fields of the service, and fields of its peer, by their paths."""
    folder = tmp_path_factory.mktemp("stock") / "service"
    shutil.copytree(render(), folder, ignore=shutil.ignore_patterns(".env"))
    (folder / "app" / "trial").mkdir()
    shutil.copy(ROOT / "tests" / "support" / "trial_routes.py", folder / "app" / "trial" / "routes.py")
    shutil.copy(ROOT / "tests" / "support" / "stock_app.py", folder)
    (folder / "stock.conf.py").write_text(STOCK_CONFIG)
    Service(folder, venv, folder.parent).flask("db", "upgrade")
    everything: Seen = {}, {}
    for rate, sampled in (("1", "sampled"), ("0", "not sampled")):
        for side, fields in zip((OURS, STOCK), everything, strict=True):
            state = folder.parent / f"{side} {sampled}"
            state.mkdir()
            shutil.copy(folder.parent / "app.db", state)
            with sink() as collector:
                environ = environment(collector, rate)
                if side == STOCK:
                    own = {"PYTHONPATH": str(stock_packages(venv)), "GUNICORN_CMD_ARGS": "-c stock.conf.py"}
                    environ |= own | {
                        "PROMETHEUS_MULTIPROC_DIR": None,
                        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                    }
                service = Service(folder, venv, state, environ)
                if side == STOCK:
                    service.all_environ["GUNICORN_CMD_ARGS"] += f" -b 127.0.0.1:{service.port}"
                    service.metrics_port = service.port
                fields[sampled] = observe(service, collector)
    return everything


def environment(collector: Sink, rate: str) -> dict[str, str | None]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp,
        "OTEL_TRACES_SAMPLER_ARG": rate,
        "OTEL_SERVICE_NAME": "my-service",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "accept,x-request-id",
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE": "content-type",
        "SENTRY_DSN": collector.dsn,
        "SENTRY_TRACES_SAMPLE_RATE": rate,
        "SENTRY_PROFILES_SAMPLE_RATE": "0",  # of one request in a hundred: stock has none
        "APP_VERSION": "1.2.3",
        "WEB_CONCURRENCY": "1",
    }


def observe(service: Service, collector: Sink) -> dict[str, Any]:
    """Start the service, send the traffic, stop it, and gather what there is then."""
    with service:
        for name, (method, path, body, headers) in TRAFFIC.items():
            sent = {"Accept": JSON, **headers, "User-Agent": name, "X-Request-ID": f"request-{name}"}
            with contextlib.suppress(http.client.IncompleteRead, http.client.RemoteDisconnected):
                service.request(method, path, body, sent)
        counts = "(?:flask_)?http_requests?_total", "(?:flask_)?http_request_duration_seconds_count"
        metrics = service.wait_for_metrics(
            lambda found: all(found.total(count) > len(TRAFFIC) for count in counts), "all are counted"
        )
        assert service.stop() == 0
    log = [line for line in service.log() if not line["logger"].startswith("gunicorn.")]
    routes = {(line["method"], line["path"]): line["route"] for line in log if "route" in line}
    found = {
        "spans": spans_of(collector.spans()),
        "sentry": events_of(collector),
        "metrics": metrics_of(metrics.text, routes),
        "log": lines_of(log),
    }
    return neutral(found, service)  # type: ignore[no-any-return]


def spans_of(spans: list[dict[str, Any]]) -> dict[str, Any]:
    """Trees of spans by the requests that made them."""
    nodes = {span["span_id"]: {**span, "below": []} for span in spans}
    found: dict[str, Any] = {}
    for span in nodes.values():
        above = nodes.get(span["parent"])
        if above is not None:
            span["parent"] = "the span above"
            above["below"].append(span)
        else:
            found.setdefault(span["attributes"].get("http.user_agent", START), []).append(span)
        del span["span_id"]
        note_length(span, span["attributes"].get("http.user_agent", ""), span.pop("seconds"))
    return found


def events_of(collector: Sink) -> dict[str, Any]:
    """Errors and transactions that Sentry got, by request."""
    found: dict[str, Any] = {"kinds": {}}
    for header, event in collector.envelopes():
        if header["type"] == "client_report":
            continue  # what the client itself counts of what it did not send
        if header["type"] not in ("event", "transaction"):
            found["kinds"][header["type"]] = True
            continue
        name = event.get("request", {}).get("headers", {}).get("User-Agent", START)
        event.get("modules", {}).pop("opentelemetry-instrumentation-flask", None)
        event["sdk"]["integrations"] = dict.fromkeys(event["sdk"]["integrations"], True)
        of_kind = found.setdefault(name, {}).setdefault(header["type"], [])
        of_kind.append({**event, "header": header["trace"]})
    return found


def metrics_of(text: str, routes: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    """The default metrics, under the service's names; the peer's histogram is of paths, which are made routes."""
    found: dict[str, Any] = {"families": {}, "total": {}, "count": {}, "labels": {}}
    for line in text.splitlines():
        if kind := re.fullmatch(r"# TYPE (\w+) (\w+)", line):
            found["families"][kind[1].replace("flask_", "").replace("_request_total", "_requests_total")] = kind[2]
        elif sample := re.fullmatch(r"(?:flask_)?http_request(s?_total|_duration_seconds_count)\{(.*)\} (\S+)", line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample[2]))
            if sample[1].endswith("_total"):
                what, key = "total", f"{labels['method']} {labels['status']}"
            else:
                route = labels.get("route") or routes[labels["method"], labels["path"]]
                what, key = "count", f"{labels['method']} {route.replace('/', '|')}"
            found["labels"][what] = dict.fromkeys(labels, True)
            found[what][key] = found[what].get(key, 0) + float(sample[3])
    return found


def lines_of(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Lines by the request that they name."""
    found: dict[str, Any] = {}
    for line in log:
        line["ts"] = re.sub(r"\d", "0", line["ts"])
        name = (line.get("request_id") or START).removeprefix("request-")
        note_length(line, name, line.get("duration_ms", 0) / 1000)
        found.setdefault(name, []).append(line)
    return found


def note_length(of: dict[str, Any], name: str, seconds: float) -> None:
    """Of the one request whose body takes long, say whether the body's time is in it."""
    if name == "stream":
        of["with the body"] = seconds >= STREAMED


def neutral(value: Any, service: Service) -> Any:
    """The value without what is another one with every start."""
    if isinstance(value, dict):
        return {key: "*" if key in VOLATILE else neutral(item, service) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [neutral(item, service) for item in value]
    if value == service.port:
        return "<port>"
    if isinstance(value, str):
        value = value.replace(str(service.state), "<state>").replace(f"{service.port}", "<port>")
        return re.sub(r"\b(?!(.)\1{15})([0-9a-f]{32}|[0-9a-f]{16})\b", "<id>", value)
    return value


def differences(ours: Any, stock: Any, path: str = "") -> dict[str, tuple[str, Any, Any]]:
    """Who has what, and what both have, by its path; what only one has is told once and not for all below it."""
    if isinstance(ours, list) and isinstance(stock, list):
        ours, stock = dict(enumerate(ours)), dict(enumerate(stock))
    if not (isinstance(ours, dict) and isinstance(stock, dict)):
        return {} if ours == stock else {path: (BOTH, ours, stock)}
    found: dict[str, tuple[str, Any, Any]] = {}
    for key in ours.keys() | stock.keys():
        below = f"{path}/{key}".lstrip("/")
        if key in ours and key in stock:
            found |= differences(ours[key], stock[key], below)
        else:
            found[below] = (OURS if key in ours else STOCK, ours.get(key), stock.get(key))
    return found


def complaints(ours: dict[str, Any], stock: dict[str, Any]) -> list[str]:
    """Every difference that the table does not have, then every line of the table that is none."""
    found: list[str] = []
    used: set[Difference] = set()
    for path, (who, left, right) in sorted(differences(ours, stock).items()):
        entries = {entry for entry in DELIBERATE if entry.who == who and fnmatchcase(path, entry.fields)}
        used |= entries
        if not entries:
            found.append(f"{who} {path}: ours {left!r}, stock {right!r}")
    return found + [f"no longer so: {entry.who} {entry.fields}" for entry in DELIBERATE if entry not in used]


@pytest.mark.default_class
def test_all_that_differs_is_meant_to(seen: Seen) -> None:
    found = complaints(*seen)
    assert not found, "\n".join(found)


@pytest.mark.default_class
@pytest.mark.parametrize(
    "path",
    [
        "sampled/spans/read/0/attributes/http.route",
        "sampled/spans/create/0/below/1",
        "sampled/sentry/read/transaction/0/spans/0/description",
        "not sampled/sentry/exception/event/0/exception/values/0/value",
        "not sampled/metrics/total/GET 404",
        "not sampled/log/read/0/route",
    ],
)
def test_one_field_that_is_lost_is_named(seen: Seen, path: str) -> None:
    ours = copy.deepcopy(seen[0])
    parent: Any = ours
    *above, last = (int(key) if key.isdigit() else key for key in path.split("/"))
    for key in above:
        parent = parent[key]
    del parent[last]
    (complaint,) = complaints(ours, seen[1])
    assert complaint.startswith(f"{STOCK} {path}: ")


@pytest.mark.default_class
def test_a_line_of_the_table_that_is_true_no_more_is_named(seen: Seen) -> None:
    assert complaints(seen[1], seen[1]) == [f"no longer so: {entry.who} {entry.fields}" for entry in DELIBERATE]
