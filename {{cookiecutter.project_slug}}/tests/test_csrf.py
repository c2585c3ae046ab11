"""Which requests have to bring a token, which tokens are good, and what is said of the others."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask, render_template_string, session
from flask.testing import FlaskClient

from tests.conftest import SECRET_KEY, MakeApp

NEXT_KEY = "Nq5rT8yUe2Kx7BvZm4WcPj9LdHs6Gf3A"
FORM, PLAIN, PARTS = "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"
forms = Blueprint("forms", __name__, url_prefix="/forms")


@forms.get("")
def show() -> str:
    return render_template_string("{{ csrf_token() }}")


@forms.route("", methods=["POST", "PUT", "PATCH", "DELETE"])
def take() -> dict[str, int]:
    session["sent"] = session.get("sent", 0) + 1
    return {"sent": session["sent"]}


def with_forms(app: Flask) -> FlaskClient:
    app.register_blueprint(forms)
    return app.test_client()


@pytest.fixture
def visitor(app: Flask) -> FlaskClient:
    """A client that has a session."""
    client = with_forms(app)
    client.get("/forms")
    return client


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (FORM, 400),
        (f"{FORM}; charset=utf-8", 400),
        ("TEXT/Plain; application/json", 400),
        (PLAIN, 400),
        (PARTS, 400),
        (None, 400),
        ("application/json", 200),
        ("application/vnd.api+json", 200),
    ],
)
def test_with_a_session_what_any_site_can_have_sent_needs_a_token(
    visitor: FlaskClient, method: str, content_type: str | None, status: int
) -> None:
    response = visitor.open("/forms", method=method, content_type=content_type)
    assert response.status_code == status
    if status == 400:
        assert response.content_type == "application/problem+json"
        assert response.get_json()["detail"] == "The CSRF token is missing."


@pytest.mark.parametrize("content_type", [FORM, PLAIN, PARTS, None])
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),  # a program
        ("http://localhost", 200),
        ("https://localhost", 200),  # a proxy of which we were not told ends TLS
        ("http://evil.example", 400),
        ("http://localhost.evil.example", 400),
        ("http://localhost:8000", 400),
        ("null", 400),  # a page in a sandbox, say
        ("http://[", 400),
    ],
)
def test_without_a_session_only_another_site_is_refused(
    app: Flask, origin: str | None, content_type: str | None, status: int
) -> None:
    headers = {"Origin": origin} if origin else {}
    assert with_forms(app).post("/forms", headers=headers, content_type=content_type).status_code == status


@pytest.mark.parametrize("way", ["field", "header"])
def test_a_token_is_taken_from_the_form_or_from_the_header(visitor: FlaskClient, way: str) -> None:
    token = visitor.get("/forms").text
    data, headers = ({"csrf_token": token}, {}) if way == "field" else ({}, {"X-CSRFToken": token})
    assert visitor.post("/forms", data=data, headers=headers).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "IngiLmFhYWE.aaaa.bbbb"])
def test_a_token_that_is_not_ours_is_refused(visitor: FlaskClient, token: str) -> None:
    assert visitor.post("/forms", data={"csrf_token": token}).status_code == 400


def test_a_token_of_another_session_is_refused(visitor: FlaskClient, app: Flask) -> None:
    others = app.test_client().get("/forms").text
    response = visitor.post("/forms", data={"csrf_token": others})
    assert response.get_json()["detail"] == "The CSRF tokens do not match."


def test_a_path_that_is_not_there_is_told_before_the_token(visitor: FlaskClient) -> None:
    assert visitor.post("/nowhere", data={"x": "y"}).status_code == 404
    assert visitor.post("/", data={"x": "y"}).status_code == 405


@pytest.mark.parametrize(("fallbacks", "status"), [(SECRET_KEY, 200), ("", 400)])
def test_a_form_opened_under_a_former_key_is_good_while_that_is_a_fallback(
    visitor: FlaskClient, make_app: MakeApp, fallbacks: str, status: int
) -> None:
    token, cookie = visitor.get("/forms").text, visitor.get_cookie("session")
    assert cookie is not None
    changed = with_forms(make_app(SECRET_KEY=NEXT_KEY, SECRET_KEY_FALLBACKS=fallbacks))
    changed.set_cookie("session", cookie.value)
    assert changed.post("/forms", data={"csrf_token": token}).status_code == status


def test_the_present_key_signs(make_app: MakeApp) -> None:
    changed = with_forms(make_app(SECRET_KEY=NEXT_KEY, SECRET_KEY_FALLBACKS=SECRET_KEY))
    token, cookie = changed.get("/forms").text, changed.get_cookie("session")
    assert cookie is not None
    done = with_forms(make_app(SECRET_KEY=NEXT_KEY))
    done.set_cookie("session", cookie.value)
    assert done.post("/forms", data={"csrf_token": token}).status_code == 200
