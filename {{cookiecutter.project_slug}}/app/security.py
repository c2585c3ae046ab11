"""What browsers and proxies are told, and what they are believed."""

from __future__ import annotations

from typing import Any

from flask import Flask, Request, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from app.settings import Settings

# Sent with every response that does not set its own; app/observability/request_log.py adds them.
# The page loads nothing from elsewhere and runs no inline script. To allow more, give the one view its own header.
HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
]
# Over TLS, where it means something, one more.
TLS_HEADERS = [*HEADERS, ("Strict-Transport-Security", "max-age=63072000; includeSubDomains")]


class BoundedRequest(Request):
    """A request whose body is held to MAX_CONTENT_LENGTH also when it comes in chunks.

    Werkzeug alone cuts such a body off at the limit, without a word, and hands on what is left.
    """

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        data = super().get_data(cache=cache, parse_form_data=parse_form_data)
        if self.content_length is None and len(data) == self.max_content_length and self.environ["wsgi.input"].read(1):
            abort(413)
        return data.decode(errors="replace") if as_text else data


def init_app(app: Flask, settings: Settings) -> None:
    """Bound bodies, and answer only to TRUSTED_HOSTS where they are set; probes come by address and are answered."""
    app.request_class = BoundedRequest
    trusted = [host.lower() for host in settings.trusted_hosts]

    def refuse_unknown_host() -> None:
        if request.blueprint != "health" and not host_is_trusted(request.host.lower(), trusted):
            abort(400, "This service does not answer to that host name.")

    if trusted:
        app.before_request(refuse_unknown_host)


def trust_proxies(app: Flask, settings: Settings) -> None:
    """Believe forwarded headers of as many proxies as are ours; each of them appends one address.

    Scheme and host are overwritten by the proxy next to us, not appended to, so of those there is one whatever
    the number of proxies. A prefix is believed only where SCRIPT_NAME says that there is one.
    """
    hops = settings.trusted_proxy_hops
    if hops:
        prefix = 1 if settings.script_name else 0
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=1, x_host=1, x_prefix=prefix)  # type: ignore[method-assign]
