"""Forms: a token tells one of ours from one that another site has a browser send (CSRF), by Flask-WTF.

In a page of ours every form that changes something holds

    <input type="hidden" name="csrf_token" value="{{ csrf_token() }}">

and a script sends the same value as the header X-CSRFToken. A request is asked for it where all of this is so:

- It may change something: POST, PUT, PATCH or DELETE.
- Any site can have a browser send it. Its content type is one of the three that a form has and that a script may send
  to another site without asking us first (https://fetch.spec.whatwg.org/#cors-safelisted-request-header), or it has
  none. For JSON a browser asks first, and as no answer of ours allows it (CORS), sends nothing; so a view that takes
  JSON must insist on its content type, as app/validation.py does.
- It brings something to abuse: our session's cookie. Or it comes from another site, as its Origin says: that site could
  log a visitor in under a name of its own. Programs send neither, so the API asks them for nothing.

This follows "Disallowing simple content types" and "Login forms" in
https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

from __future__ import annotations

from flask import Flask, Request, abort, current_app, request, session

from app.settings import Settings

UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
FORM_TYPES = {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""}


def init_app(app: Flask, settings: Settings) -> None:
    """Check forms, and give templates `csrf_token()`. Flask-WTF is imported by the first form: it takes 15 ms."""
    app.config.from_mapping(
        WTF_CSRF_SECRET_KEY=[*settings.secret_key_fallbacks, settings.secret_key],  # all are good, the last one signs
        WTF_CSRF_TIME_LIMIT=None,  # a form can be sent as long as its session lasts
        WTF_CSRF_METHODS=UNSAFE,
        WTF_CSRF_FIELD_NAME="csrf_token",
        WTF_CSRF_HEADERS=["X-CSRFToken"],
        WTF_CSRF_SSL_STRICT=True,  # over TLS the Referer must be ours too; Referrer-Policy has browsers send it
    )
    app.before_request(check)
    app.jinja_env.globals["csrf_token"] = token


def check() -> None:
    """Refuse with 400 what has to have a token and has none that fits its session; with 503 what cannot be checked."""
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]  # each look through the proxy takes 2 µs
    if asked.method in UNSAFE and asked.url_rule and asked.mimetype in FORM_TYPES and brings_something(asked):
        from flask_wtf.csrf import CSRFError, CSRFProtect

        try:
            CSRFProtect().protect()
        except CSRFError:
            if getattr(session, "unreadable", False):
                abort(503)  # the token may well be right
            raise


def brings_something(asked: Request) -> bool:
    """Whether a request has our session's cookie, or is from another site."""
    origin = asked.headers.get("Origin", f"://{asked.host}")
    return current_app.config["SESSION_COOKIE_NAME"] in asked.cookies or origin.partition("://")[2] != asked.host


def token() -> str:
    """What a form of this session has to bring; the session is made if there is none."""
    from flask_wtf.csrf import generate_csrf

    made: str = generate_csrf()
    return made
