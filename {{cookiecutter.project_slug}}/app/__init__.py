"""The service. `create_app` is the order of assembly and nothing else.

Nothing heavy is imported at this level: `python -m app.capacity` runs with the standard library alone.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """Build the service from `settings`, or from the environment where none are given.

    Raises:
        SettingsError: what was set does not describe a service that can run; it lists all that is wrong.
    """
    from flask import Flask

    from app import assets, cli, csrf, database, errors, health, security, serialize, sessions
    from app.observability import logs, metrics, request_log
    from app.settings import load_settings

    settings = settings or load_settings()
    logs.configure(settings.log_level)

    app = Flask("app")
    app.json = serialize.JSONProvider(app)
    app.config.from_mapping(settings.flask_config())
    app.extensions["settings"] = settings
    app.extensions["exporters"] = []  # what sends to others in the background: `app.server.hooks` starts and ends it
    app.extensions["breakers"] = []  # of dependencies that requests can do without

    assets.init_app(app)
    errors.init_app(app)
    security.init_app(app, settings)
    csrf.init_app(app, settings)
    database.init_app(app, settings)
    if settings.redis_url:
        import_module("app.redis").init_app(app, settings.redis_url)
    if settings.ratelimit_enabled:
        import_module("app.limiter").init_app(app, settings)
    sessions.init_app(app, settings)
    health.init_app(app)
    register_features(app)
    if settings.database_replica_url:
        import_module("app.database.replica").init_app(app)
    if settings.api_docs:
        app.register_blueprint(import_module("app.openapi").blueprint)
    health.require(app, settings.readiness_required)

    cli.init_app(app)
    metrics.init_app(settings)
    if settings.sentry_dsn:
        import_module("app.observability.sentry").init_app(app, settings)
    if settings.traces_endpoint:
        import_module("app.observability.tracing").init_app(app, settings)
    request_log.init_app(app)
    security.trust_proxies(app, settings)
    return app


def register_features(app: Flask) -> None:
    """Register the `blueprint` of every `app/*/routes.py`.

    A feature is added by writing its folder and removed by deleting it. This file changes for neither, so it
    never stands in the way of a template update.
    """
    for routes in sorted(Path(__file__).parent.glob("*/routes.py")):
        app.register_blueprint(import_module(f"app.{routes.parent.name}.routes").blueprint)
