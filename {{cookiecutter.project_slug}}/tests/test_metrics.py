"""Metrics: few series whatever clients send, each request counted once, and nothing left in flight."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from prometheus_client import REGISTRY

from app.settings import ANSWERS
from tests.conftest import MakeApp

parcels = Blueprint("parcels", __name__, url_prefix="/parcels")


def value(name: str, **labels: str) -> float:
    """What the metric stands at; 0 where it was never counted."""
    return REGISTRY.get_sample_value(name, labels) or 0


def in_flight() -> float:
    return value("http_requests_in_flight")


@parcels.route("/<int:number>", methods=["GET", "PURGE"])
def show(number: int) -> str:
    return str(in_flight())


@parcels.get("/crash")
def crash() -> str:
    raise RuntimeError


@parcels.get("/broken-stream")
def broken_stream() -> Iterator[str]:
    yield "1"
    raise RuntimeError


@pytest.fixture
def app(app: Flask) -> Flask:
    app.register_blueprint(parcels)
    return app


@pytest.mark.parametrize(
    ("sent", "path", "route", "method", "status"),
    [
        ("GET", "/parcels/7", "/parcels/<int:number>", "GET", "200"),
        ("HEAD", "/parcels/7", "/parcels/<int:number>", "HEAD", "200"),
        ("PURGE", "/parcels/7", "/parcels/<int:number>", "OTHER", "200"),
        ("BREW", "/made/up", "unmatched", "OTHER", "404"),
        ("GET", "/parcels/crash", "/parcels/crash", "GET", "500"),
        ("GET", "/healthz/live", "/healthz/live", "GET", "200"),
    ],
)
def test_a_request_is_counted_once_under_its_route(
    client: FlaskClient, sent: str, path: str, route: str, method: str, status: str
) -> None:
    def counted() -> tuple[float, float]:
        requests = value("http_requests_total", route=route, method=method, status=status)
        return requests, value("http_request_duration_seconds_count", route=route, method=method)

    before = counted()
    client.open(path, method=sent)
    assert counted() == (before[0] + 1, before[1] + 1)


def test_a_request_is_in_flight_until_its_last_byte(client: FlaskClient) -> None:
    before = in_flight()
    assert float(client.get("/parcels/1").text) == before + 1
    assert in_flight() == before
    response = client.get("/parcels/1", buffered=False)
    assert in_flight() == before + 1
    response.close()
    assert in_flight() == before


def test_an_error_leaves_nothing_in_flight(client: FlaskClient) -> None:
    before = in_flight()
    client.get("/parcels/crash")
    with pytest.raises(RuntimeError):
        client.get("/parcels/broken-stream")
    assert in_flight() == before


def test_app_info_says_what_runs(make_app: MakeApp) -> None:
    make_app(APP_VERSION="1.2.3")
    assert value("app_info", version="1.2.3", template_version=ANSWERS["template_version"]) == 1
