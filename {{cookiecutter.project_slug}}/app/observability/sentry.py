"""Errors, and a share of requests, sent to Sentry; imported only where SENTRY_DSN is set.

Sentry's own Flask integration works for every request in case it fails. Here an event asks about its request when
there is an event, and the few requests whose time is taken go through Sentry's own WSGI middleware. What arrives is
the same, release health aside: sessions are not counted (`http_requests_total` counts requests).

No personal data is sent: no addresses, cookies, query strings, bodies, nor variables. The user's id is, where
the application sets `g.user_id`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import sentry_sdk
from flask import Flask, g, got_request_exception, has_request_context, request, request_started
from sentry_sdk.integrations.atexit import AtexitIntegration
from sentry_sdk.integrations.flask import FlaskRequestExtractor
from sentry_sdk.integrations.sqlalchemy import SqlalchemyIntegration
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware, _make_wsgi_event_processor
from sentry_sdk.scope import Scope
from sentry_sdk.utils import event_from_exception

from app.capacity import SECONDS
from app.observability import PROBES
from app.observability.logs import request_id
from app.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from sentry_sdk._types import DataCollectionUserOptions, ExcInfo
    from sentry_sdk.types import Event, Hint

DRAWN, TIMED = "app.sentry.drawn", "app.sentry.timed"  # in the environment of a request
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
    request_started.connect(name_transaction, app)
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
            traces_sample_rate=settings.sentry_ratio,  # only told with errors: the sampler is asked
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
        return 1.0 if DRAWN in context.get("wsgi_environ", ()) else self.settings.sentry_ratio

    def flush(self) -> None:
        """Send what is left, as far as that can be done in time."""
        sentry_sdk.flush(self.patience)


class Sampling:
    """The WSGI layer that draws which requests are timed, before anything is done for the others."""

    def __init__(self, inner: WSGIApplication, rate: float) -> None:
        self.inner, self.rate = inner, rate
        self.timed = SentryWsgiMiddleware(self.mark, span_origin="auto.http.flask")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # New scopes, made when they are used: what the last request on this thread left is not this one's.
        Scope.set_isolation_scope(None)  # type: ignore[arg-type]
        Scope.set_current_scope(None)  # type: ignore[arg-type]
        probe = environ["PATH_INFO"].startswith(PROBES)
        if "HTTP_SENTRY_TRACE" in environ:
            return self.timed(environ, start_response)  # type: ignore[no-any-return]
        if random.random() < self.rate and not probe:  # noqa: S311
            environ[DRAWN] = True
            return self.timed(environ, start_response)  # type: ignore[no-any-return]
        return Watched(environ, self.inner(environ, start_response))

    def mark(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The application, with its transaction's real rate and user told."""
        environ[TIMED] = True
        drawn = sentry_sdk.get_current_scope().transaction
        if drawn is not None and DRAWN in environ:
            # Sentry thinks that it took all; it extrapolates by these, and services that we call decide by them.
            drawn.sample_rate, drawn._sample_rand = self.rate, drawn._sample_rand * self.rate

        def known(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if user := user_of_request():
                sentry_sdk.get_current_scope().set_user(user)
            return start_response(status, headers, exc_info)

        return self.inner(environ, known)


class Watched:
    """The body of a request that is not timed. What fails while it is sent is reported, as Sentry's own layer does."""

    def __init__(self, environ: WSGIEnvironment, body: Iterable[bytes]) -> None:
        self.environ, self.body = environ, body

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.body
        except Exception as error:
            with sentry_sdk.new_scope() as scope:
                scope.add_event_processor(_make_wsgi_event_processor(self.environ, False))
                # Without this layer's own frame: Sentry would take it for the application's.
                report((type(error), error, error.__traceback__ and error.__traceback__.tb_next), "wsgi")
            raise

    def close(self) -> None:
        if hasattr(self.body, "close"):
            self.body.close()


def name_transaction(sender: Flask, **_: Any) -> None:
    """Name the transaction before anything is told of it: an error of the view, or a service that the view calls."""
    if TIMED in request.environ and request.endpoint:
        sentry_sdk.get_current_scope().set_transaction_name(request.endpoint, source="component")


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
    report(exception, "flask")


def report(exception: BaseException | ExcInfo, layer: str) -> None:
    """Send an event of an exception that came as far as this layer."""
    options = sentry_sdk.get_client().options
    event, hint = event_from_exception(exception, client_options=options, mechanism={"type": layer, "handled": False})
    sentry_sdk.capture_event(event, hint=hint)
