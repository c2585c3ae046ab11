"""Errors are problem documents with the request's id, whatever went wrong, and tell nothing of the inside."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, Response
from flask.testing import FlaskClient
from pydantic import BaseModel
from werkzeug.exceptions import NotFound, ServiceUnavailable, TooManyRequests

from app.validation import read_body
from tests.conftest import MakeApp

parcels = Blueprint("parcels", __name__, url_prefix="/parcels")
FAILURES = {
    "busy": TooManyRequests(retry_after=7),
    "closed": ServiceUnavailable("canary", retry_after=9),
    "crash": RuntimeError("canary"),
    "own": NotFound(response=Response("mine", 404)),
}


class Parcel(BaseModel):
    weight: int


@parcels.post("/")
def send() -> str:
    return str(read_body(Parcel).weight)


@parcels.get("/<kind>")
def fail(kind: str) -> str:
    raise FAILURES[kind]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app(MAX_CONTENT_LENGTH="100")
    app.register_blueprint(parcels)
    return app


@pytest.mark.parametrize(
    ("method", "path", "sent", "status"),
    [
        ("GET", "/nowhere", {}, 404),
        ("POST", "/healthz/live", {}, 405),
        ("POST", "/parcels/", {"data": "{", "content_type": "application/json"}, 400),
        ("POST", "/parcels/", {"json": {"weight": "9" * 100}}, 413),
        ("POST", "/parcels/", {"data": "weight=1"}, 415),
        ("POST", "/parcels/", {"json": {"weight": "much"}}, 422),
        ("GET", "/parcels/busy", {}, 429),
        ("GET", "/parcels/crash", {}, 500),
        ("GET", "/parcels/closed", {}, 503),
    ],
)
def test_an_error_is_a_problem_document(
    client: FlaskClient, method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    response = client.open(path, method=method, **sent)
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    body = response.get_json()
    assert body.keys() - {"errors"} == {"type", "title", "status", "detail", "request_id"}
    assert body["status"] == status
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert "canary" not in response.text
    assert "Traceback" not in response.text


def test_the_headers_that_belong_to_an_error_are_kept(client: FlaskClient) -> None:
    assert "GET" in client.post("/healthz/live").headers["Allow"]
    assert client.get("/parcels/busy").headers["Retry-After"] == "7"
    assert client.get("/parcels/closed").headers["Retry-After"] == "9"


def test_a_422_points_at_each_wrong_value(client: FlaskClient) -> None:
    (error,) = client.post("/parcels/", json={"weight": "much"}).get_json()["errors"]
    assert error["pointer"] == "/weight"
    assert "integer" in error["detail"]


def test_redirects_and_responses_of_a_view_pass(client: FlaskClient) -> None:
    redirect, own = client.post("/parcels"), client.get("/parcels/own")
    assert (redirect.status_code, redirect.headers["Location"]) == (308, "http://localhost/parcels/")
    assert (own.status_code, own.text) == (404, "mine")


def test_there_is_no_debug_mode(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert not make_app(APP_ENV="development").debug
