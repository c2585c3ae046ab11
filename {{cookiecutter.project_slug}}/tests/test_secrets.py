"""A secret is never told: in no error, log line, repr or traceback, and not by `flask preflight`."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from app import database
from app.extensions import db
from app.preflight import examine, refuse, report
from app.settings import SettingsError
from tests.conftest import SECRET_KEY, MakeApp
from tests.test_settings import SECRETS

CANARY = "canary"
KEY = f"{CANARY}-{SECRET_KEY}"
REFUSES = f"postgresql://app:{CANARY}@127.0.0.1:1/app"  # nothing listens on port 1
MALFORMED = {
    "a word": CANARY,
    "two lines": f"{KEY}\n{KEY}",
    "no text": f"{CANARY}\udcff",  # how Python reads the byte FF
    "another database": f"mysql://app:{CANARY}@db/app",
    "no host": f"postgresql://app:{CANARY}",
    "no port": f"postgresql://db:{CANARY}/app",
    "an @ too many": f"postgresql://app:@{CANARY}@db/app",
    "a / in the user": f"postgresql://a/b:{CANARY}@db/app",
    "a / too few": f"sqlite://{CANARY}",
    "a / too few of two": f"postgresql:/app:{CANARY}@db/app",
}
GIVEN = {name: {"well": REFUSES if name.startswith("DATABASE") else KEY} | MALFORMED for name in SECRETS}


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the app its `flask` commands."""
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")


def tell_everything(make_app: MakeApp, environ: dict[str, str]) -> None:
    """Have the service say all that it can say about such an environment."""
    try:
        app = make_app(LOG_LEVEL="DEBUG", **environ)
    except SettingsError as error:
        print(repr(error), *traceback.format_exception(error))
        for as_json in (False, True):
            refuse(error.problems, as_json)
        return
    app.add_url_rule("/uses-the-database", view_func=lambda: str(db.session.execute(text("SELECT 1"))))
    print(app.extensions["settings"])
    assert app.test_client().get("/healthz/ready").status_code == 503
    assert app.test_client().get("/uses-the-database").status_code == 503  # logged with its traceback
    migrated = app.test_cli_runner().invoke(args=["db", "upgrade"])
    assert migrated.exception is not None
    print(migrated.output, *traceback.format_exception(migrated.exception))
    with app.app_context():
        findings = examine(app)
    for as_json in (False, True):
        report(findings, as_json)


@pytest.mark.parametrize("app_env", ["production", "development"])
@pytest.mark.parametrize("way", ["value", "file", "value in the place of a path"])
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in GIVEN.items() for kind in kinds])
def test_no_secret_is_ever_told(
    name: str, kind: str, way: str, app_env: str, make_app: MakeApp, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = GIVEN[name][kind]
    (tmp_path / "secret").write_text(secret, errors="surrogateescape")
    ways = {
        "value": {name: secret},
        "file": {f"{name}_FILE": str(tmp_path / "secret")},
        "value in the place of a path": {f"{name}_FILE": secret},
    }
    tell_everything(make_app, {"APP_ENV": app_env, "SECRET_KEY": KEY, "DATABASE_URL": REFUSES, **ways[way]})
    said = capfd.readouterr()
    assert said.out
    assert CANARY not in said.out + said.err


def test_a_driver_that_quotes_the_password_is_not_repeated(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def ping(_engine: Engine | None = None) -> None:
        raise OperationalError(None, None, Exception(f"cannot connect to {REFUSES}"))

    monkeypatch.setattr(database, "ping", ping)
    tell_everything(make_app, {"DATABASE_URL": REFUSES})
    said = capfd.readouterr().out
    assert "cannot connect to postgresql://app:***@" in said
    assert CANARY not in said
