"""Log lines: one JSON object each with the fields that dashboards rely on, and one id for all that a request leaves."""

from __future__ import annotations

import logging
import re

import pytest
from flask import Blueprint, Flask, g
from flask.testing import FlaskClient

from tests.conftest import LogLines, MakeApp

parcels = Blueprint("parcels", __name__, url_prefix="/parcels")
log = logging.getLogger("app.parcels")
ODD = ["\ud800", 2**70, b"\xff", {1: object()}]  # what JSON, or orjson, cannot hold


@parcels.get("/<int:number>")
def show(number: int) -> str:
    g.user_id = ODD[number] if number < len(ODD) else number
    log.info("looked at", extra={"value": g.user_id})
    return "seen"


@parcels.get("/crash")
def crash() -> str:
    raise RuntimeError("canary")


@pytest.fixture
def app(app: Flask) -> Flask:
    app.register_blueprint(parcels)
    return app


def test_a_request_is_one_line_with_the_fields_of_the_contract(client: FlaskClient, log_lines: LogLines) -> None:
    client.get("/parcels/7?token=canary", headers={"X-Request-ID": "abc.DEF_12-3"})
    own, line = log_lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("ts"))
    assert 0 <= line.pop("duration_ms") < 60_000
    assert line == {
        "level": "INFO",
        "logger": "app.request",
        "message": "request",
        "request_id": "abc.DEF_12-3",
        "method": "GET",
        "path": "/parcels/7",
        "route": "/parcels/<int:number>",
        "status": 200,
        "user_id": 7,
        "trace_id": None,
    }
    assert list(own) == ["ts", "level", "logger", "message", "request_id", "value"]
    assert (own["request_id"], own["value"]) == ("abc.DEF_12-3", 7)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        *[(good, True) for good in ("a" * 8, "a" * 128, "Az09._-x")],
        *[(bad, False) for bad in ("", "a" * 7, "a" * 129, "with space", 'quote"quote', "semi;colon", "ümläutüm")],
    ],
)
def test_a_request_id_is_kept_only_if_it_is_harmless(client: FlaskClient, sent: str, kept: bool) -> None:
    (given,) = client.get("/", headers={"X-Request-ID": sent}).headers.getlist("X-Request-ID")
    assert given == sent if kept else re.fullmatch(r"[0-9a-f]{32}", given)


def test_probes_are_not_logged(client: FlaskClient, log_lines: LogLines) -> None:
    for path in ("/healthz/live", "/healthz/ready", "/healthz/unknown"):
        client.get(path)
    assert [line["path"] for line in log_lines()] == ["/healthz/unknown"]


def test_log_level_warning_silences_requests_but_not_errors(make_app: MakeApp, log_lines: LogLines) -> None:
    app = make_app(LOG_LEVEL="WARNING")
    app.register_blueprint(parcels)
    app.test_client().get("/parcels/7")
    app.test_client().get("/parcels/crash")
    assert [line["level"] for line in log_lines()] == ["ERROR"]


def test_an_exception_is_one_line_with_its_traceback(client: FlaskClient, log_lines: LogLines) -> None:
    response = client.get("/parcels/crash")
    error, request = log_lines()
    assert (error["level"], request["status"]) == ("ERROR", 500)
    assert error["exc_info"].startswith("Traceback")
    assert error["exc_info"].endswith("RuntimeError: canary")
    assert error["request_id"] == request["request_id"] == response.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (b'/a\nb"\\\0', '/a\nb"\\\0'),  # a line feed begins no new line
        ("/café".encode(), "/café"),
        (b"/\xff", "/\ufffd"),
        (b"/" + b"x" * 5000, "/" + "x" * 5000),
    ],
)
def test_any_path_is_logged_as_json(client: FlaskClient, log_lines: LogLines, sent: bytes, logged: str) -> None:
    client.get(environ_overrides={"PATH_INFO": sent.decode("latin-1")})
    (line,) = log_lines()
    assert (line["path"], line["route"], line["status"]) == (logged, "unmatched", 404)


@pytest.mark.parametrize("number", range(len(ODD)))
def test_what_json_cannot_hold_fails_no_request(client: FlaskClient, log_lines: LogLines, number: int) -> None:
    assert client.get(f"/parcels/{number}").text == "seen"
    own, line = log_lines()
    assert own["value"]
    assert line["user_id"]
