"""Sessions in the cookie. Those on Redis are tested where there is one, in the template's own repository."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask, Request, session
from flask.testing import FlaskClient

from app.sessions import CookieSessions, Session
from tests.conftest import SECRET_KEY, MakeApp

NEXT_KEY = "Nq5rT8yUe2Kx7BvZm4WcPj9LdHs6Gf3A"
PRODUCTION = {"APP_ENV": "production", "DATABASE_URL": "postgresql://app:secret@127.0.0.1:1/app"}
visits = Blueprint("visits", __name__, url_prefix="/visits")


@visits.get("/count")
def count() -> dict[str, int]:
    session["count"] = session.get("count", 0) + 1
    return {"count": session["count"]}


@visits.get("/read")
def read() -> dict[str, int]:
    return dict(session)


@visits.get("/end")
def end() -> dict[str, int]:
    session.clear()
    return dict(session)


def with_visits(app: Flask) -> FlaskClient:
    app.register_blueprint(visits)
    return app.test_client()


def test_a_session_lasts_over_requests_until_it_is_ended(app: Flask) -> None:
    client = with_visits(app)
    assert [client.get("/visits/count").get_json()["count"] for _ in range(3)] == [1, 2, 3]
    client.get("/visits/end")
    assert client.get_cookie("session") is None
    assert client.get("/visits/read").get_json() == {}


def test_a_route_that_does_not_touch_its_session_neither_reads_nor_sends_a_cookie(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = with_visits(app)
    client.get("/visits/count")
    loads: list[str] = []

    def load(interface: object, session: Session, request: Request) -> dict[str, int]:
        loads.append(request.path)
        return {}

    monkeypatch.setattr(CookieSessions, "load", load)
    for path in ("/", "/api/docs", "/healthz/live", "/nowhere", "/static/app.css"):
        headers = client.get(path).headers
        assert "Set-Cookie" not in headers
        assert "Cookie" not in headers.get("Vary", "")
    assert client.get("/visits/read").headers["Vary"] == "Cookie"
    assert loads == ["/visits/read"]


@pytest.mark.parametrize(
    ("environ", "name", "path"),
    [
        ({}, "session", "/"),
        ({"SCRIPT_NAME": "/shop"}, "session", "/shop"),
        (PRODUCTION, "__Host-session", "/"),
        ({**PRODUCTION, "SCRIPT_NAME": "/shop"}, "session", "/shop"),
    ],
)
def test_the_cookie_is_for_this_service_alone(make_app: MakeApp, environ: dict[str, str], name: str, path: str) -> None:
    cookie = with_visits(make_app(**environ)).get("/visits/count").headers["Set-Cookie"]
    assert cookie.startswith(f"{name}=")
    given = dict(part.partition("=")[::2] for part in cookie.split("; ")[1:])
    assert given.pop("Expires")
    assert given == {
        "HttpOnly": "",
        "Path": path,
        "SameSite": "Lax",
        **({"Secure": ""} if "APP_ENV" in environ else {}),
    }


@pytest.mark.parametrize("value", ["", "x", "e30.aaaa.bbbb", "é" * 10, "x" * 4000])
def test_a_cookie_that_is_not_ours_is_no_session(app: Flask, value: str) -> None:
    client = with_visits(app)
    client.set_cookie("session", value)
    assert client.get("/visits/read").get_json() == {}
    assert client.get("/visits/count").get_json() == {"count": 1}


@pytest.mark.parametrize(("fallbacks", "count"), [(SECRET_KEY, 2), ("", 1)])
def test_a_session_signed_by_a_former_key_is_good_while_that_is_a_fallback(
    app: Flask, make_app: MakeApp, fallbacks: str, count: int
) -> None:
    before = with_visits(app)
    before.get("/visits/count")
    cookie = before.get_cookie("session")
    assert cookie is not None
    after = with_visits(make_app(SECRET_KEY=NEXT_KEY, SECRET_KEY_FALLBACKS=fallbacks))
    after.set_cookie("session", cookie.value)
    assert after.get("/visits/count").get_json() == {"count": count}


def test_a_test_can_prepare_a_session(app: Flask) -> None:
    client = with_visits(app)
    with client.session_transaction() as prepared:
        prepared["count"] = 7
    assert client.get("/visits/count").get_json() == {"count": 8}
