"""What the tests share. Each app has settings and a database of its own, whatever the caller's environment and `.env`
say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app, health
from app.extensions import db
from app.settings import load_settings

SECRET_KEY = "kX9-fTqLw2_Zr7vNb4Hs8JdYc6Mg1PeA"
MakeApp = Callable[..., Flask]
LogLines = Callable[[], list[dict[str, Any]]]


class Client(FlaskClient):
    """Takes each response to its end, as a server does: only then is a request counted and logged."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=buffered, **kwargs)


def flask_db(app: Flask, *command: str) -> None:
    """Run `flask db COMMAND`; the app must have been made with FLASK_RUN_FROM_CLI set, as `flask` sets it."""
    result = app.test_cli_runner().invoke(args=["db", *command])
    assert result.exit_code == 0, result.output


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness waits for its checks: nothing fails because a machine is slow."""
    monkeypatch.setattr(health, "DEADLINE", 30)


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """Make the service as if the environment were this and nothing else: `make_app(LOG_LEVEL="WARNING")`."""
    made: list[Flask] = []
    defaults = {"APP_ENV": "testing", "SECRET_KEY": SECRET_KEY, "DATABASE_URL": f"sqlite:///{tmp_path}/app.db"}

    def make(**environ: str) -> Flask:
        app = create_app(load_settings({**defaults, **environ}, root=tmp_path))
        app.test_client_class = Client
        made.append(app)
        return app

    yield make
    for app in made:
        for breaker in app.extensions["breakers"]:  # one that is open would ask on, in the midst of other tests
            breaker.ask = breaker.on_change = lambda *_: None
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database that the service's own migrations made."""
    path = tmp_path_factory.mktemp("migrated") / "app.db"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
        environ = {"APP_ENV": "testing", "SECRET_KEY": SECRET_KEY, "DATABASE_URL": f"sqlite:///{path}"}
        flask_db(create_app(load_settings(environ)), "upgrade")
    return path


@pytest.fixture
def app(make_app: MakeApp, migrated: Path, tmp_path: Path) -> Flask:
    shutil.copy(migrated, tmp_path / "app.db")
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def log_lines(capfd: pytest.CaptureFixture[str]) -> LogLines:
    """The log lines since the last call. They are written to file descriptor 1, past `sys.stdout`."""
    return lambda: [json.loads(line) for line in capfd.readouterr().out.split("\n") if line]
