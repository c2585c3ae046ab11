"""What browsers are told, which hosts are answered, and which forwarded headers are believed."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask, Response, request
from flask.testing import FlaskClient

from app.security import HEADERS
from tests.conftest import MakeApp

mirror = Blueprint("mirror", __name__, url_prefix="/mirror")
OWN = {"Content-Security-Policy": "default-src *", "Strict-Transport-Security": "max-age=60"}


@mirror.get("/client")
def show_client() -> dict[str, str | None]:
    """Who the service takes the client for, and itself."""
    return {"address": request.remote_addr, "url": request.root_url}


@mirror.get("/own-headers")
def set_headers() -> Response:
    return Response(headers=OWN)


@pytest.mark.parametrize("path", ["/", "/healthz/live", "/static/app.css", "/nowhere"])
def test_every_response_has_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert all(headers.getlist(name) == [value] for name, value in HEADERS)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_strict_transport_security_is_sent_over_tls_only(client: FlaskClient) -> None:
    assert "Strict-Transport-Security" not in client.get("/").headers
    assert "Strict-Transport-Security" in client.get("/", base_url="https://localhost").headers


def test_headers_that_a_view_sets_are_kept(app: Flask) -> None:
    app.register_blueprint(mirror)
    headers = app.test_client().get("/mirror/own-headers", base_url="https://localhost").headers
    assert {name: headers.getlist(name) for name in OWN} == {name: [value] for name, value in OWN.items()}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("shop.example", 200),
        ("shop.example:8443", 200),
        ("SHOP.example", 200),
        ("eu.shops.example", 200),
        ("eu.shop.example", 400),
        ("shop.example.attacker.example", 400),
    ],
)
def test_only_trusted_hosts_are_answered(make_app: MakeApp, host: str, status: int) -> None:
    client = make_app(TRUSTED_HOSTS="Shop.example,.shops.example", TRUSTED_PROXY_HOPS="1").test_client()
    assert client.get("/", headers={"Host": host}).status_code == status
    assert client.get("/", headers={"Host": "shop.example", "X-Forwarded-Host": host}).status_code == status


FORWARDED = {
    "X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2",  # the first is what a client made up
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/shop",
    "Forwarded": "for=6.6.6.6;host=attacker.example",
}


@pytest.mark.parametrize(
    ("settings", "address", "url"),
    [
        ({}, "10.0.0.1", "http://localhost/"),
        ({"SCRIPT_NAME": "/shop"}, "10.0.0.1", "http://localhost/"),
        ({"TRUSTED_PROXY_HOPS": "1"}, "10.0.0.2", "https://shop.example/"),
        ({"TRUSTED_PROXY_HOPS": "2"}, "203.0.113.9", "https://shop.example/"),
        ({"TRUSTED_PROXY_HOPS": "9"}, "10.0.0.1", "https://shop.example/"),  # fewer came: none of them is ours
        ({"TRUSTED_PROXY_HOPS": "1", "SCRIPT_NAME": "/shop"}, "10.0.0.2", "https://shop.example/shop/"),
    ],
)
def test_forwarded_headers_are_believed_of_our_own_proxies_only(
    make_app: MakeApp, settings: dict[str, str], address: str, url: str
) -> None:
    app = make_app(**settings)
    app.register_blueprint(mirror)
    peer = {"REMOTE_ADDR": "10.0.0.1"}
    response = app.test_client().get("/mirror/client", headers=FORWARDED, environ_overrides=peer)
    assert response.get_json() == {"address": address, "url": url}
