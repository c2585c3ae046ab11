"""Settings: each variable is read, the order of sources, what is refused and how, and that secrets stay secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings
from tests.conftest import SECRET_KEY

PRODUCTION = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "postgresql://app:pw@db:5432/app"}
DEVELOPMENT = {"APP_ENV": "development", "SECRET_KEY": "short"}
NAMES = [setting.metadata["name"] for setting in fields(Settings)]
SECRETS = [setting.metadata["name"] for setting in fields(Settings) if setting.metadata["secret"]]


def problems(environ: Mapping[str, str], root: Path = Path("/nonexistent")) -> list[str]:
    """What is wrong with `environ`, a line each."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, root)
    return caught.value.problems


@pytest.mark.parametrize(
    ("name", "raw", "attribute", "value"),
    [
        ("APP_ENV", "Testing", "app_env", "testing"),
        ("APP_VERSION", "1.2.3", "app_version", "1.2.3"),
        (
            "SECRET_KEY_FALLBACKS",
            f"{SECRET_KEY}, {SECRET_KEY}2,",
            "secret_key_fallbacks",
            (SECRET_KEY, f"{SECRET_KEY}2"),
        ),
        ("DATABASE_URL", "postgres://u:p%40@h/d", "database_url", "postgresql+psycopg://u:p%40@h/d"),
        ("DATABASE_URL", "postgresql://u@[::1]:5432/d", "database_url", "postgresql+psycopg://u@[::1]:5432/d"),
        ("DATABASE_URL", "postgresql:///d?host=/run", "database_url", "postgresql+psycopg:///d?host=/run"),
        ("DATABASE_MIGRATION_URL", "postgresql://h/d", "database_migration_url", "postgresql+psycopg://h/d"),
        ("LOG_LEVEL", "warning", "log_level", "WARNING"),
        ("LOG_LEVEL", "warning", "server_log_level", "WARNING"),
        ("GUNICORN_LOGLEVEL", "debug", "server_log_level", "DEBUG"),
        ("TRUSTED_PROXY_HOPS", "2", "trusted_proxy_hops", 2),
        ("SCRIPT_NAME", "/shop", "script_name", "/shop"),
        ("TRUSTED_HOSTS", "a.example, .b.example", "trusted_hosts", ("a.example", ".b.example")),
        ("READINESS_REQUIRED", "database", "readiness_required", ("database",)),
        ("MAX_CONTENT_LENGTH", "2048", "max_content_length", 2048),
        ("METRICS_PORT", "9200", "metrics_port", 9200),
        ("METRICS_BIND", "10.0.0.1", "metrics_bind", "10.0.0.1"),
        ("PROMETHEUS_MULTIPROC_DIR", "/run/metrics", "metrics_dir", "/run/metrics"),
        ("PORT", "8001", "port", 8001),
        ("GUNICORN_BIND", "0.0.0.0:80,unix:/run/app", "bind", ("0.0.0.0:80", "unix:/run/app")),
        ("GUNICORN_WORKER_CLASS", "SYNC", "worker_class", "sync"),
        ("GUNICORN_THREADS", "8", "threads", 8),
    ],
)
def test_a_variable_is_read(name: str, raw: str, attribute: str, value: object) -> None:
    assert getattr(load_settings({**PRODUCTION, name: raw}), attribute) == value


def test_empty_means_unset_and_unset_means_production() -> None:
    settings = load_settings(PRODUCTION)
    assert load_settings({**dict.fromkeys(NAMES, ""), **PRODUCTION}) == settings
    assert settings.production
    assert (settings.metrics_bind, settings.metrics_port, settings.port) == ("0.0.0.0", 9102, 8000)
    assert settings.flask_config()["SESSION_COOKIE_SECURE"]


def test_development_needs_no_database_server_and_no_tls(tmp_path: Path) -> None:
    settings = load_settings(DEVELOPMENT, tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/instance/app.db"
    assert settings.metrics_bind == "127.0.0.1"
    assert not settings.flask_config()["SESSION_COOKIE_SECURE"]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("APP_ENV", "prod"),
        ("LOG_LEVEL", "LOUD"),
        *[("PORT", raw) for raw in ("http", "0", "65536", "-1", "٨٠٠٠")],
        ("MAX_CONTENT_LENGTH", "1MB"),
        ("GUNICORN_WORKER_CLASS", "eventlet"),
        *[("DATABASE_URL", raw) for raw in ("mysql://u:p@h/d", "h/d", "postgresql://app:no-host", "sqlite:///app.db")],
        ("DATABASE_MIGRATION_URL", "postgresql://app:p@ssword@h/d"),
        *[("SECRET_KEY", raw) for raw in ("", "short", "abc" * 20, f"changeme{SECRET_KEY}", f"EXAMPLE{SECRET_KEY}")],
    ],
)
def test_production_refuses_it_in_one_line_that_begins_with_its_name(name: str, raw: str) -> None:
    (problem,) = problems({**PRODUCTION, name: raw})
    assert problem.startswith(f"{name}: ")


def test_everything_wrong_is_listed_at_once_with_what_mends_it() -> None:
    found = problems({"LOG_LEVEL": "LOUD", "PORT": "http", "DATABASE_MIGRATION_URL_FILE": "/nonexistent/url"})
    names = [problem.partition(":")[0] for problem in found]
    assert names == ["DATABASE_MIGRATION_URL_FILE", "LOG_LEVEL", "PORT", "SECRET_KEY", "DATABASE_URL"]
    assert "python3 -c 'import secrets; " in found[3]
    assert "export DATABASE_URL=postgresql://" in found[4]
    assert "run: python3 scripts/make_env.py" in problems({"APP_ENV": "development"})[0]


@pytest.mark.parametrize("sources", [["environment", "file", ".env"], ["file", ".env"], [".env"]])
def test_the_environment_beats_a_file_beats_dot_env(sources: list[str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("file\n")
    (tmp_path / ".env").write_text("# comment\n\nSECRET_KEY='.env'\n")
    variables = {"environment": ("SECRET_KEY", "environment"), "file": ("SECRET_KEY_FILE", str(tmp_path / "key"))}
    environ = {"APP_ENV": "development", "SECRET_KEY": "", "SECRET_KEY_FILE": ""}
    environ |= dict(variables[source] for source in sources if source in variables)
    assert load_settings(environ, tmp_path).secret_key == sources[0]


def test_dot_env_is_read_in_development_only(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1234")
    ports = [load_settings({**PRODUCTION, "APP_ENV": name}, tmp_path).port for name in ("development", "testing", "")]
    assert ports == [1234, 8000, 8000]


def test_web_concurrency_is_a_ceiling_in_dot_env_and_the_number_in_the_environment(tmp_path: Path) -> None:
    def workers(**environ: str) -> int:
        return load_settings({**DEVELOPMENT, **environ}, tmp_path).plan().workers

    sized = workers()
    (tmp_path / ".env").write_text("WEB_CONCURRENCY=1000")
    assert workers() == sized
    (tmp_path / ".env").write_text("WEB_CONCURRENCY=1")
    assert workers() == 1
    assert workers(WEB_CONCURRENCY="77") == 77
    assert workers(WEB_CONCURRENCY="77", GUNICORN_WORKERS="78") == 78


def test_no_secret_is_in_the_repr_of_the_settings() -> None:
    url = "postgresql://app:canary@db:5432/the-name-of-a-database"
    assert "canary" not in repr(load_settings({**dict.fromkeys(SECRETS, url), "SECRET_KEY": SECRET_KEY + "canary"}))


@pytest.mark.parametrize("value", ["canary", "mysql://u:canary@h", "postgresql://u:canary", "postgresql://h:canary/d"])
def test_no_secret_is_in_the_message_about_a_wrong_value(value: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary")
    found = problems({**dict.fromkeys(SECRETS, value), "SECRET_KEY": "", "SECRET_KEY_FILE": str(tmp_path / "key")})
    assert len(found) == 4
    assert "canary" not in str(SettingsError(found))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCRIPT_NAME", "shop"),
        ("SCRIPT_NAME", "/shop/"),
        ("GUNICORN_BIND", "nonsense"),
        ("GUNICORN_BIND", "host:name"),
        ("SECRET_KEY_FALLBACKS", f"{SECRET_KEY},changeme"),
    ],
)
def test_what_gunicorn_or_a_forger_would_stumble_over_is_refused(name: str, value: str) -> None:
    (line,) = problems({**PRODUCTION, name: value})
    assert line.startswith(f"{name}: ")
