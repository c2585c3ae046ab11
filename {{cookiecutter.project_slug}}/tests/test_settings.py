"""Settings: each variable is read, where from, what is refused and how, and that the documents know them all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from itertools import combinations
from pathlib import Path

import pytest

from app.settings import ENV_FILE_WORKERS, ROOT, Settings, SettingsError, load_settings, read_env_file
from tests.conftest import SECRET_KEY

PRODUCTION = {"SECRET_KEY": SECRET_KEY, "DATABASE_URL": "postgresql://app:pw@db:5432/app"}
DEVELOPMENT = {"APP_ENV": "development", "SECRET_KEY": "short"}
DEFAULTS = {setting.metadata["name"]: setting.metadata["default"] for setting in fields(Settings)}
SECRETS = {setting.metadata["name"]: setting.name for setting in fields(Settings) if setting.metadata["secret"]}
# Where a secret may stand; the first one wins.
PLACES = [
    ("environment", "SECRET_KEY_FILE"),
    ("environment", "SECRET_KEY"),
    (".env", "SECRET_KEY_FILE"),
    (".env", "SECRET_KEY"),
]


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
        *[("API_DOCS", raw, "api_docs", True) for raw in ("1", "True", "yes")],
        *[("API_DOCS", raw, "api_docs", False) for raw in ("0", "false", "No")],
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
    assert load_settings({**dict.fromkeys(DEFAULTS, ""), **PRODUCTION}) == settings
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
        *[(name, "two\nlines") for name in ("APP_VERSION", "METRICS_BIND", "TRUSTED_HOSTS", "SECRET_KEY_FALLBACKS")],
        ("MAX_CONTENT_LENGTH", "1MB"),
        ("API_DOCS", "maybe"),
        ("GUNICORN_WORKER_CLASS", "eventlet"),
        *[("DATABASE_URL", raw) for raw in ("mysql://u:p@h/d", "h/d", "postgresql://app:no-host", "sqlite:///app.db")],
        *[
            ("DATABASE_MIGRATION_URL", f"postgresql://{rest}")
            for rest in ("a:p@ss@h/d", "a/b:p@h/d", "h/d?x=@", "h:x/d")
        ],
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


@pytest.mark.parametrize("given", [given for size in range(5) for given in combinations(PLACES, size)])
@pytest.mark.parametrize("app_env", ["production", "development", "testing"])
def test_the_first_place_that_has_a_secret_wins_and_dot_env_is_one_in_development_only(
    app_env: str, given: list[tuple[str, str]], tmp_path: Path
) -> None:
    keys = {place: f"{SECRET_KEY}-{number}" for number, place in enumerate(PLACES)}
    variables: dict[str, dict[str, str]] = {"environment": {"DATABASE_URL": "postgresql://h/d"}, ".env": {}}
    for source, name in given:
        file = tmp_path / f"key of {source}"
        file.write_text(keys[source, "SECRET_KEY_FILE"] + "\n")
        variables[source][name] = str(file) if name == "SECRET_KEY_FILE" else keys[source, name]
    (tmp_path / ".env").write_text("\n".join(f"{name}='{value}'" for name, value in variables[".env"].items()))
    environ = {"APP_ENV": app_env, **variables["environment"]}

    counts = [keys[place] for place in given if app_env == "development" or place[0] == "environment"]
    if counts:
        assert load_settings(environ, tmp_path).secret_key == counts[0]
    else:
        assert problems(environ, tmp_path)[0].startswith("SECRET_KEY: is missing")


@pytest.mark.parametrize(("name", "attribute"), SECRETS.items())
def test_every_secret_may_come_from_a_file_and_nothing_else_may(name: str, attribute: str, tmp_path: Path) -> None:
    scheme = {"SENTRY_DSN": "https://key@", "REDIS_URL": "redis://"}.get(name, "postgresql://")
    secret = f"{scheme}{SECRET_KEY}/1"
    (tmp_path / "file").write_text(f"{secret}\n")
    environ = {**PRODUCTION, f"{name}_FILE": str(tmp_path / "file"), "PORT_FILE": str(tmp_path / "file")}
    assert SECRET_KEY in str(getattr(load_settings(environ), attribute))


@pytest.mark.parametrize(
    ("environment", "dot_env", "port"),
    [("1234", "4321", 1234), ("", "4321", 4321), (" ", "", 8000), ("1234\n", "", 1234)],
)
def test_the_environment_beats_dot_env_and_what_is_empty_is_passed_over(
    environment: str, dot_env: str, port: int, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"# comment\n\nPORT={dot_env}\n")
    assert load_settings({**DEVELOPMENT, "PORT": environment, "PORT_FILE": "none"}, tmp_path).port == port


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_file_is_an_empty_value_and_no_other_place_is_asked(content: str, tmp_path: Path) -> None:
    """Whoever names a file means it: what stands elsewhere may be years old."""
    (tmp_path / "file").write_text(content)
    (tmp_path / ".env").write_text("SECRET_KEY_FALLBACKS=old")
    files = {f"{name}_FILE": str(tmp_path / "file") for name in SECRETS}
    settings = load_settings({**DEVELOPMENT, **files, "SECRET_KEY_FILE": "", "SECRET_KEY_FALLBACKS": "old"}, tmp_path)
    assert settings.secret_key_fallbacks == ()


def test_a_file_that_holds_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff" * 40)
    assert problems({**PRODUCTION, "SECRET_KEY_FILE": str(tmp_path / "file")}) == [
        "SECRET_KEY: must be one line of text."
    ]


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


def test_the_page_about_the_settings_says_what_the_code_says() -> None:
    command = [sys.executable, "-m", "app.settings"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    page = (ROOT / "docs" / "settings.md").read_bytes()
    assert page == printed, "Mend it: .venv/bin/python -m app.settings > docs/settings.md"


def test_the_example_has_a_line_for_every_variable_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(names) == sorted([*DEFAULTS.keys() - {ENV_FILE_WORKERS}, "POSTGRES_PASSWORD"])
    assert read_env_file(ROOT / ".env.example").items() <= DEFAULTS.items()


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
