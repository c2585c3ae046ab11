"""Every environment variable of the service, typed and checked together when it starts.

The first of these that has a value wins:

1. for a secret, the file that `NAME_FILE` names: what a platform keeps (Docker, Kubernetes, systemd) comes as a file
2. the environment
3. in development only, `.env`; there too `NAME_FILE` beats `NAME`

Empty means unset. A list is comma-separated. What is wrong is said all at once, with the commands that mend it, and
nothing of a secret is ever printed. `.venv/bin/python -m app.settings > docs/settings.md` writes the page about them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.capacity import THREADS, Plan, find_limits, load_answers, plan

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = load_answers()
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PLACEHOLDER = re.compile(r"change[-_ ]?me|placeholder|your[-_ ]|insecure|example|not[-_ ]?secret|replace", re.I)
NEW_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104  metrics have a port of their own, which no edge forwards to
ENV_FILE_WORKERS = "WEB_CONCURRENCY in .env"  # a ceiling there, a number in the environment


class SettingsError(RuntimeError):
    """What was set does not describe a service that can run; `str()` lists all that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        count = "1 setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        super().__init__("\n  ".join([f"Cannot start: {count} wrong.", *problems]))
        self.problems = problems


# The docstring of a parser says what it takes; docs/settings.md repeats it.
def text(raw: str) -> str:
    """text"""
    return raw


def listing(raw: str) -> tuple[str, ...]:
    """list"""
    return tuple(item.strip() for item in raw.split(",") if item.strip())


def whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", raw) or not low <= int(raw) <= high:
            raise ValueError(f"must be {parse.__doc__}")
        return int(raw)

    parse.__doc__ = f"a whole number from {low} to {high}"
    return parse


def ratio(raw: str) -> float:
    """a number from 0 to 1"""
    try:
        value = float(raw)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"must be {ratio.__doc__}")
    return value


def url(raw: str) -> str:
    """a URL: http:// or https://"""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", raw):
        raise ValueError(f"must be {url.__doc__}")
    return raw


def choice(*allowed: str) -> Callable[[str], str]:
    """A parser of one of a few words, in any case."""

    def parse(raw: str) -> str:
        for word in allowed:
            if word.lower() == raw.lower():
                return word
        raise ValueError(f"must be {parse.__doc__}")

    parse.__doc__ = f"one of: {', '.join(allowed)}"
    return parse


def dsn(raw: str) -> str:
    """a DSN like https://KEY@HOST/1"""
    if not re.fullmatch(r"https?://[^@/\s]+@[^@/\s]+/(\S*/)?[0-9]+", raw):
        raise ValueError(f"must be {dsn.__doc__}")
    return raw


def switch(raw: str) -> bool:
    """1, true or yes; 0, false or no"""
    if raw.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise ValueError(f"must be {switch.__doc__}")
    return raw.lower() in ("1", "true", "yes")


def prefix(raw: str) -> str:
    """a path like /orders, without a slash at its end"""
    if not re.fullmatch(r"(/[^/?#]+)+", raw):
        raise ValueError(f"must be {prefix.__doc__}")
    return raw


def addresses(raw: str) -> tuple[str, ...]:
    """list of addresses like 0.0.0.0:8000 or unix:/run/app.sock"""
    found = listing(raw)
    for address in found:
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^][:/]*):[0-9]{1,5}|unix:.+|fd://[0-9]+", address):
            raise ValueError(f"must be a {addresses.__doc__}")
    return found


def sqlalchemy_url(raw: str) -> str:
    """a URL: postgresql:// or postgres://, both on psycopg 3; sqlite:/// outside production"""
    scheme, mark, rest = raw.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+psycopg") and mark:
        # Stricter than SQLAlchemy, which would take part of a password that is not escaped for a name, and print it.
        if not re.fullmatch(r"([^@:/]*(:[^@]*)?@)?(\[[^]]*\]|[^][@:/?]*)(:[0-9]+)?([/?][^@]*)?", rest):
            raise ValueError(
                "must be postgresql://USER:PASSWORD@HOST:5432/NAME, an @ in a part written as %40, a / as %2F"
            )
        return f"postgresql+psycopg://{rest}"
    if raw == "sqlite://" or raw.startswith("sqlite:///"):
        return raw
    raise ValueError("must begin with postgresql:// (in development sqlite:/// will do)")


def redis_url(raw: str) -> str:
    """a URL: redis://, rediss:// (TLS) or unix://"""
    # As strict as that of the database, and for the same reason.
    if not re.fullmatch(
        r"rediss?://([^@:/]*(:[^@]*)?@)?(\[[^]]*\]|[^][@:/?]+)(:[0-9]{1,5})?(/[0-9]*)?(\?[^@]*)?", raw
    ) and not re.fullmatch(r"unix://([^@:/]*(:[^@]*)?@)?/[^@]+", raw):
        raise ValueError("must be redis://:PASSWORD@HOST:6379/0, an @ in the password written as %40, a / as %2F")
    return raw


def rate(raw: str) -> str:
    """a rate like 300 per minute, or several: 10 per second; 300 per minute"""
    if not re.fullmatch(
        r"[1-9][0-9]{0,8} per (second|minute|hour|day)(; ?[1-9][0-9]{0,8} per (second|minute|hour|day))*", raw
    ):
        raise ValueError(f"must be {rate.__doc__}")
    return raw


def variable(name: str, parse: Callable[[str], Any], doc: str, default: str = "", secret: bool = False) -> Any:
    """A setting from the environment variable `name`; unset it is `parse(default)`, or None if that is empty."""
    metadata = {"name": name, "parse": parse, "doc": doc, "default": default, "secret": secret}
    return field(default=None, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says; `load_settings` makes it, nothing changes it."""

    app_env: str = variable("APP_ENV", choice("production", "development", "testing"), "Where this runs.", "production")
    app_version: str = variable("APP_VERSION", text, "The release that runs, shown in metrics.", "dev")
    secret_key: str = variable(
        "SECRET_KEY", text, "Signs cookies; 32 characters or more, new ones yearly.", secret=True
    )
    secret_key_fallbacks: tuple[str, ...] = variable(
        "SECRET_KEY_FALLBACKS", listing, "Former keys, and the next one: what they sign is valid.", secret=True
    )
    database_url: str = variable(
        "DATABASE_URL", sqlalchemy_url, "Production wants PostgreSQL; else SQLite in `instance/`.", secret=True
    )
    database_migration_url: str = variable(
        "DATABASE_MIGRATION_URL", sqlalchemy_url, "For migrations, past a pooler.", secret=True
    )
    database_replica_url: str | None = variable(
        "DATABASE_REPLICA_URL", sqlalchemy_url, "A copy for reading; empty: the primary does it.", secret=True
    )
    redis_url: str | None = variable(
        "REDIS_URL", redis_url, "For sessions, cache and limits; empty: no Redis.", secret=True
    )
    ratelimit_enabled: bool = variable("RATELIMIT_ENABLED", switch, "Limits what one client may ask for.", "1")
    ratelimit_writes: str = variable(
        "RATELIMIT_WRITES", rate, "How often one client may write to what is limited.", "300 per minute"
    )
    ratelimit_failure: str = variable(
        "RATELIMIT_ON_FAILURE", choice("open", "closed"), "Without Redis for a while: let all through, or none.", "open"
    )
    log_level: str = variable("LOG_LEVEL", choice(*LEVELS), "WARNING silences the line per request.", "INFO")
    sentry_dsn: str | None = variable("SENTRY_DSN", dsn, "Errors are reported there; empty: nowhere.", secret=True)
    sentry_traces_rate: float | None = variable(
        "SENTRY_TRACES_SAMPLE_RATE",
        ratio,
        "The share of requests that Sentry times; else 0.05, or 0 where OpenTelemetry traces them.",
    )
    sentry_profiles_rate: float = variable(
        "SENTRY_PROFILES_SAMPLE_RATE", ratio, "The share of those that are profiled.", "0.01"
    )
    otlp_endpoint: str | None = variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT", url, "Traces are sent below it, to /v1/traces; empty: nowhere."
    )
    otlp_traces_endpoint: str | None = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url, "Or to this very URL.")
    otlp_protocol: str = variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL", choice("http/protobuf"), "How traces are sent.", "http/protobuf"
    )
    otel_disabled: bool = variable("OTEL_SDK_DISABLED", switch, "1: no traces, whatever else is set.", "0")
    service_name: str = variable("OTEL_SERVICE_NAME", text, "The name in traces; else the service's own.")
    traces_ratio: float = variable(
        "OTEL_TRACES_SAMPLER_ARG", ratio, "The share of requests traced, where no caller has decided.", "0.05"
    )
    trusted_proxy_hops: int = variable("TRUSTED_PROXY_HOPS", whole(0, 9), "Our own proxies in front.", "0")
    script_name: str | None = variable("SCRIPT_NAME", prefix, "The path that a proxy serves us under, like /orders.")
    trusted_hosts: tuple[str, ...] = variable("TRUSTED_HOSTS", listing, "Host names to answer to; empty: any.")
    readiness_required: tuple[str, ...] = variable(
        "READINESS_REQUIRED", listing, "Checks without which it gets no traffic.", "database,migrations"
    )
    max_content_length: int = variable(
        "MAX_CONTENT_LENGTH", whole(1, 2**36), "The largest request body, in bytes.", str(2**20)
    )
    api_docs: bool = variable("API_DOCS", switch, "Serves `/api/docs` and `/api/openapi.json`.", "1")
    metrics_port: int = variable("METRICS_PORT", whole(1, 65535), "Where Prometheus reads metrics.", "9102")
    metrics_bind: str = variable("METRICS_BIND", text, "Where; else 0.0.0.0, in development 127.0.0.1.")
    metrics_dir: str | None = variable("PROMETHEUS_MULTIPROC_DIR", text, "For folders of metrics; else /tmp.")
    port: int = variable("PORT", whole(1, 65535), "The port to serve on, at 127.0.0.1.", "8000")
    bind: tuple[str, ...] = variable("GUNICORN_BIND", addresses, "host:port or unix:/path to serve on; beats `PORT`.")
    web_concurrency: int | None = variable("WEB_CONCURRENCY", whole(1, 1024), "Worker processes; else by capacity.py.")
    worker_ceiling: int | None = variable(ENV_FILE_WORKERS, whole(1, 1024), "The most worker processes.")
    gunicorn_workers: int | None = variable("GUNICORN_WORKERS", whole(1, 1024), "Beats `WEB_CONCURRENCY`.")
    worker_class: str = variable(
        "GUNICORN_WORKER_CLASS", choice(*THREADS), "How a worker handles requests.", ANSWERS["worker_class"]
    )
    threads: int | None = variable(
        "GUNICORN_THREADS", whole(1, 256), "Threads or greenlets per worker; else by capacity.py."
    )
    server_log_level: str = variable("GUNICORN_LOGLEVEL", choice(*LEVELS), "Gunicorn's own; else `LOG_LEVEL`.")

    @property
    def production(self) -> bool:
        return self.app_env == "production"

    @property
    def sentry_ratio(self) -> float:
        """Timing a request for Sentry takes 1.5 ms of CPU; one tracer is enough, unless somebody asks for both."""
        if self.sentry_traces_rate is not None:
            return self.sentry_traces_rate
        return 0.0 if self.traces_endpoint else 0.05

    @property
    def traces_endpoint(self) -> str | None:
        """Where traces are sent, or None: then nothing of OpenTelemetry is imported."""
        if self.otel_disabled:
            return None
        below = self.otlp_endpoint and self.otlp_endpoint.rstrip("/") + "/v1/traces"
        return self.otlp_traces_endpoint or below

    def plan(self) -> Plan:
        """Workers, threads and pool for what this process has; the environment beats the arithmetic."""
        return plan(
            find_limits(),
            self.worker_class,
            workers=self.gunicorn_workers or self.web_concurrency,
            threads=self.threads,
            ceiling=self.worker_ceiling,
        )

    def flask_config(self) -> dict[str, object]:
        """The part of Flask's own configuration that depends on the environment."""
        return {
            "SECRET_KEY": self.secret_key,
            "SECRET_KEY_FALLBACKS": list(self.secret_key_fallbacks),
            "TESTING": self.app_env == "testing",
            "DEBUG": False,  # FLASK_DEBUG would show every line of the log, whatever LOG_LEVEL says
            "MAX_CONTENT_LENGTH": self.max_content_length,
            "PREFERRED_URL_SCHEME": "https" if self.production else "http",
            # Under this name browsers keep a cookie only from this very host, over TLS, for all of its paths: none that
            # a neighbour of our domain has set. Behind a prefix the path is that, and the name an ordinary one.
            "SESSION_COOKIE_NAME": "__Host-session" if self.production and not self.script_name else "session",
            "SESSION_COOKIE_PATH": self.script_name or "/",
            "SESSION_COOKIE_SECURE": self.production,
            "SESSION_COOKIE_HTTPONLY": True,
            "SESSION_COOKIE_SAMESITE": "Lax",
            "PERMANENT_SESSION_LIFETIME": timedelta(hours=8),
        }


def load_settings(environ: Mapping[str, str] = os.environ, root: Path = ROOT) -> Settings:
    """Read `environ`, completed by `root/.env` in development.

    Raises:
        SettingsError: with a line for each thing that is wrong.
    """
    sources = [environ]
    if environ.get("APP_ENV", "").strip().lower() == "development":
        sources.append(read_env_file(root / ".env"))

    values: dict[str, Any] = {}
    problems: list[str] = []
    for setting in fields(Settings):
        name, parse = setting.metadata["name"], setting.metadata["parse"]
        try:
            raw = find_value(name, sources, setting.metadata["secret"]) or setting.metadata["default"]
            values[setting.name] = parse(raw) if raw or parse in (listing, addresses) else None
        except OSError as error:
            # Its path is not told: that is the secret itself where somebody mixed the two names up.
            problems.append(f"{name}_FILE: names a file that cannot be read: {error.strerror}.")
        except ValueError as error:
            default = setting.metadata["default"]
            problems.append(f"{name}: {error}" + (f"; export {name}={default}" if default else "."))

    production = values.get("app_env", "production") == "production"
    if not production and "database_url" in values:
        values["database_url"] = values["database_url"] or f"sqlite:///{root / 'instance' / 'app.db'}"
    values["metrics_bind"] = values.get("metrics_bind") or (ANY_ADDRESS if production else "127.0.0.1")
    values["server_log_level"] = values.get("server_log_level") or values.get("log_level")
    if "app_env" in values:
        problems += missing(values, production)
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def find_value(name: str, sources: Iterable[Mapping[str, str]], secret: bool) -> str:
    """The value in the first source that has one; of a secret, a file beats the variable. Empty where none has."""
    raw = ""
    for source in sources:
        path = source.get(f"{name}_FILE") if secret else None
        raw = Path(path).read_text(encoding="utf-8", errors="surrogateescape") if path else source.get(name, "")
        if path or raw.strip():
            break
    if not raw.strip().isprintable():  # nor are bytes that are no text
        raise ValueError("must be one line of text")
    return raw.strip()


def missing(values: Mapping[str, Any], production: bool) -> list[str]:
    """What a service must not start without; a value that could not be read has its own line already."""
    problems = []
    key = values.get("secret_key")
    if "secret_key" in values and not key:
        mend = f"set it to what this prints: {NEW_KEY}" if production else "run: python3 scripts/make_env.py"
        problems.append(f"SECRET_KEY: is missing; {mend}")
    elif key and production and is_weak(key):
        problems.append(f"SECRET_KEY: is too short, too plain or a placeholder; set it to what this prints: {NEW_KEY}")
    if production and any(is_weak(former) for former in values.get("secret_key_fallbacks", ())):
        problems.append("SECRET_KEY_FALLBACKS: holds a key that is too short, too plain or a placeholder; take it out")
    url = values.get("database_url")
    if "database_url" in values and not url:
        problems.append("DATABASE_URL: is missing; export DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/NAME")
    elif url and production and url.startswith("sqlite"):
        problems.append("DATABASE_URL: is SQLite, which one machine alone can use; production wants postgresql://")
    return problems


def is_weak(key: str) -> bool:
    """Whether a key can be guessed; whoever has it, or a former one, can sign as we do."""
    return len(key) < 32 or len(set(key)) < 10 or PLACEHOLDER.search(key) is not None


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines of a `.env` file, without comments, blank lines and the quotes around a value."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    values = {name.strip(): value.strip().strip("'\"") for name, mark, value in pairs if mark}
    if "WEB_CONCURRENCY" in values:
        values[ENV_FILE_WORKERS] = values.pop("WEB_CONCURRENCY")
    return {name: value for name, value in values.items() if value}


def reference() -> str:
    """The text of docs/settings.md."""
    lines = [f"# Settings\n\n{__doc__}\n| Variable | Default | Takes | What it means |\n| --- | --- | --- | --- |"]
    for setting in fields(Settings):
        name, default, takes = setting.metadata["name"], setting.metadata["default"], setting.metadata["parse"].__doc__
        names = f"`{name}`, `{name}_FILE`" if setting.metadata["secret"] else f"`{name}`"
        lines.append(f"| {names} | {default and f'`{default}`'} | {takes} | {setting.metadata['doc']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(reference())
