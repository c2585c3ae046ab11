"""What browsers and proxies are told, and what they are believed."""

from __future__ import annotations

from flask import Flask, abort, request
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
# Only over TLS, where it means something.
TRANSPORT_SECURITY = ("Strict-Transport-Security", "max-age=63072000; includeSubDomains")


def init_app(app: Flask, settings: Settings) -> None:
    """Answer only to TRUSTED_HOSTS, where they are set. Probes come by address, so they are always answered."""

    @app.before_request
    def refuse_unknown_host() -> None:
        asked = settings.trusted_hosts and request.blueprint != "health"
        if asked and not host_is_trusted(request.host, settings.trusted_hosts):
            abort(400, "This service does not answer to that host name.")


def trust_proxies(app: Flask, settings: Settings) -> None:
    """Believe forwarded headers of as many proxies as are ours; each of them appends one address.

    Scheme and host are overwritten by the proxy next to us, not appended to, so of those there is one whatever
    the number of proxies. A prefix is believed only where SCRIPT_NAME says that there is one.
    """
    hops = settings.trusted_proxy_hops
    if hops:
        prefix = 1 if settings.script_name else 0
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=1, x_host=1, x_prefix=prefix)  # type: ignore[method-assign]
