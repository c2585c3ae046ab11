"""Errors, and a share of requests, sent to Sentry; imported only where SENTRY_DSN is set.

Sentry's own Flask integration works for every request in case it fails. Here an event asks about its request when
there is an event, and the few requests whose time is taken go through Sentry's own WSGI middleware. What arrives is
the same, release health aside: sessions are not counted (`http_requests_total` counts requests).

No personal data is sent: no addresses, cookies, query strings, bodies, nor variables. The user's id is, where
the application sets `g.user_id`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import sentry_sdk
from flask import Flask, g, got_request_exception, has_request_context, request
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.flask import FlaskRequestExtractor
from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware, _make_wsgi_event_processor
from sentry_sdk.scope import Scope
from sentry_sdk.utils import event_from_exception

from app.capacity import SECONDS
from app.observability.logs import request_id
from app.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from sentry_sdk._types import DataCollectionUserOptions
    from sentry_sdk.types import Event, Hint

QUEUE = 1000  # events that wait to be sent; more at once are dropped
PRIVATE: DataCollectionUserOptions = {
    "user_info": False,
    "cookies": {"mode": "off"},
    "http_headers": {"request": {"mode": "allowlist", "terms": ["accept", "content-", "host", "user-agent"]}},
    "http_bodies": [],
    "url_query_params": {"mode": "off"},
    "stack_frame_variables": False,
    "database_query_data": False,
}


def init_app(app: Flask, settings: Settings) -> None:
    """Report errors of `app`, from now on also those that happen before a request."""
    exporter = Exporter(settings)
    exporter.start()
    app.extensions["exporters"].append(exporter)
    app.wsgi_app = Sampling(app.wsgi_app, settings.sentry_ratio)  # type: ignore[method-assign]
    got_request_exception.connect(capture, app)


class Exporter:
    """What queues events and sends them, in a thread of its own.

    Attributes:
        patience: seconds that a stop waits for `flush`.
    """

    patience = SECONDS["flush"]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __str__(self) -> str:
        return f"errors and {self.settings.sentry_ratio:g} of the requests to Sentry"

    def start(self) -> None:
        """Begin with an empty queue; a worker does so again after the fork, since a lock may have been held then."""
        settings = self.settings
        sentry_sdk.init(
            dsn=settings.sentry_dsn,
            release=settings.app_version,
            environment=settings.app_env,
            traces_sampler=self.sample,
            profiles_sample_rate=settings.sentry_profiles_rate,
            data_collection=PRIVATE,
            auto_session_tracking=False,
            auto_enabling_integrations=False,
            integrations=[SqlalchemyIntegration()],
            disabled_integrations=[AtexitIntegration()],  # it would write to the terminal of a stop
            transport_queue_size=QUEUE,
        )
        everywhere = sentry_sdk.get_global_scope()
        everywhere.add_event_processor(describe)
        everywhere._propagation_context = None  # or all errors would seem to be of one trace

    def sample(self, context: dict[str, Any]) -> float:
        """Sentry's question how likely a transaction is taken; one of a request without a parent was drawn already."""
        parent: bool | None = context["parent_sampled"]
        if parent is not None:
            return float(parent)
        return 1.0 if "wsgi_environ" in context else self.settings.sentry_ratio

    def flush(self) -> None:
        """Send what is left, as far as that can be done in time."""
        sentry_sdk.flush(self.patience)


class Sampling:
    """The WSGI layer that draws which requests are timed, before anything is done for the others."""

    def __init__(self, inner: WSGIApplication, rate: float) -> None:
        self.inner, self.rate = inner, rate
        self.timed = SentryWsgiMiddleware(self.name, span_origin="auto.http.flask")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # New scopes, made when they are used: what the last request on this thread left is not this one's.
        Scope.set_isolation_scope(None)  # type: ignore[arg-type]
        Scope.set_current_scope(None)  # type: ignore[arg-type]
        probe = environ["PATH_INFO"].startswith("/healthz/")
        if "HTTP_SENTRY_TRACE" in environ or (random.random() < self.rate and not probe):  # noqa: S311
            return self.timed(environ, start_response)  # type: ignore[no-any-return]
        return self.inner(environ, start_response)

    def name(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The application, with its transaction named as Sentry's integration does, and its real rate told."""

        def named(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            scope = sentry_sdk.get_current_scope()
            if has_request_context() and request.endpoint:
                scope.set_transaction_name(request.endpoint, source="component")
            drawn = scope.transaction
            if drawn is not None and drawn.parent_sampled is None:
                # Sentry thinks that it took all; it extrapolates by these, and services that we call decide by them.
                drawn.sample_rate, drawn._sample_rand = self.rate, drawn._sample_rand * self.rate
            if user := user_of_request():
                scope.set_user(user)
            return start_response(status, headers, exc_info)

        return self.inner(environ, named)


def user_of_request() -> dict[str, str]:
    """Who the application says it is."""
    return {"id": str(g.user_id)} if g and g.get("user_id") is not None else {}


def describe(event: Event, hint: Hint) -> Event:
    """Tell of the request that an event happened in."""
    if request_id.get():
        event["tags"] = {**event.get("tags", {}), "request_id": request_id.get()}
    if has_request_context():
        event = _make_wsgi_event_processor(request.environ, False)(event, hint) or event
        FlaskRequestExtractor(request).extract_into_event(event)
        if request.endpoint:
            event["transaction"], event["transaction_info"] = request.endpoint, {"source": "component"}
        if user := user_of_request():
            event["user"] = {**event.get("user", {}), **user}
    return event


def capture(sender: Flask, exception: BaseException, **_: Any) -> None:
    """Report an unhandled exception."""
    options = sentry_sdk.get_client().options
    event, hint = event_from_exception(exception, client_options=options, mechanism={"type": "flask", "handled": False})
    sentry_sdk.capture_event(event, hint=hint)
