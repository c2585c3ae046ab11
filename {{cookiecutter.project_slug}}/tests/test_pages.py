"""The page at `/`: links for everybody, details for developers only, and nothing loaded from elsewhere."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from app.settings import ANSWERS
from tests.conftest import MakeApp

PRODUCTION = {"APP_VERSION": "1.2.3", "APP_ENV": "production", "DATABASE_URL": "postgresql://app:canary@db/app"}
DETAILS = ["1.2.3", "What is running", "Database", "postgresql", "workers", "9102"]


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]*)"', page)


def test_details_are_for_developers_only(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "name", "Shop")
    monkeypatch.setitem(ANSWERS, "description", "Sells things.")
    production = make_app(**PRODUCTION).test_client().get("/").text
    development = make_app(**{**PRODUCTION, "APP_ENV": "development"}).test_client().get("/").text
    assert [detail for detail in DETAILS if detail in production] == []
    assert [detail for detail in DETAILS if detail in development] == DETAILS
    assert "/healthz/live" in production
    assert "canary" not in development


def test_every_link_and_file_is_our_own_and_exists(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "<script" not in page
    assert len(addresses(page)) >= 4
    for address in addresses(page):
        assert re.match("/[^/]", address)
        assert client.get(address).status_code == 200


def test_links_work_behind_a_prefix(client: FlaskClient) -> None:
    page = client.get("/", environ_overrides={"SCRIPT_NAME": "/shop"}).text
    assert all(address.startswith("/shop/") for address in addresses(page))


def test_what_the_page_shows_is_escaped(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "name", "<script>alert(1)</script>")
    page = make_app(APP_VERSION='"><script>').test_client().get("/").text
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
