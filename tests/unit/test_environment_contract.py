"""The environment contract: what the service reads, and what its files say that it reads, are the same variables.

`app/settings.py` reads them. A file that names a variable which nobody reads fails here, and so does one that has to
name a variable and does not.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from support.answers import CHOICES, VARIANTS
from support.git import listed, would_track
from support.settings import Variable, read_settings
from support.template import SERVICE, Render

Files = Mapping[str, str]  # the path of a file of the service, and its text
Find = Callable[[str], set[str]]

SETTINGS = "app/settings.py"
NAME = r"[A-Z][A-Z0-9_]*[A-Z0-9]"
# How a variable looks in a text, whatever the format. A word in capitals alone is none: GET, JSON.
LOOKS = (
    r"\b([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b",  # a word with an underscore
    rf"\b({NAME}) ?[?:+]?=",  # set: shell, make, systemd, images
    rf"\$[({{]?({NAME})\b",  # used there
    rf"(?m)^[\s#-]*({NAME}):\s",  # set in YAML
    rf"\bname: ({NAME})\b",  # set in a manifest
    rf"`({NAME})`",  # told about in Markdown
)


@cache
def words(text: str) -> set[str]:
    """Names anywhere in a text."""
    return {name for look in LOOKS for name in re.findall(look, text)}


def lines(text: str) -> set[str]:
    """`NAME=value` at the beginning of lines, as in `.env`."""
    return set(re.findall(rf"^({NAME})=", text, re.M))


def rows(text: str) -> set[str]:
    """Names in the first column of a table."""
    return {name for cell in re.findall(r"^\|([^|]*)\|", text, re.M) for name in re.findall(rf"`({NAME})`", cell)}


@cache
def strings(source: str) -> set[str]:
    """Names in the strings and comments of a Python source, and in what it asks the environment for."""
    constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = [token.string for token in tokens if token.type == tokenize.COMMENT]
    texts += [constant for constant in constants if isinstance(constant, str)]
    asked = re.findall(rf"""(?:environ(?:\.\w+)?|getenv)[\[(]["']({NAME})["']""", source)
    return words("\n".join(texts)) | set(asked)


EVERY = "every variable"
EVERY_FILE = "NAME_FILE for every secret NAME"
# The files that must name variables, how each names them, and which. A file without a row need not name any, and no
# file at all may name one that nobody reads.
READERS: dict[str, tuple[Find, tuple[str, ...]]] = {
    ".env.example": (lines, (EVERY, "POSTGRES_PASSWORD")),
    "docs/settings.md": (rows, (EVERY, EVERY_FILE)),
    "README.md": (words, ("DATABASE_URL", "SECRET_KEY", "TRUSTED_PROXY_HOPS")),
    "docs/runbook.md": (words, ("SECRET_KEY", "SECRET_KEY_FALLBACKS", "METRICS_PORT")),
    "Makefile": (words, ("APP_ENV", "PORT", "WEB_CONCURRENCY")),
    "compose.yaml": (
        words,
        ("APP_VERSION", "DATABASE_URL_FILE", "DATABASE_MIGRATION_URL_FILE", "SECRET_KEY_FILE", "REDIS_URL"),
    ),
    "deploy/kubernetes/base/app.yaml": (words, ("SECRET_KEY_FILE", "DATABASE_URL_FILE", "DATABASE_MIGRATION_URL_FILE")),
    "deploy/kubernetes/base/kustomization.yaml": (words, ("TRUSTED_PROXY_HOPS",)),
    "Dockerfile": (words, ("APP_VERSION", "GUNICORN_BIND")),
    "scripts/healthcheck.py": (strings, ("GUNICORN_BIND", "PORT")),
    "scripts/make_env.py": (strings, ("SECRET_KEY", "POSTGRES_PASSWORD", "WEB_CONCURRENCY")),
}

# Names that are not ours to read, and why they stand in our files.
OTHERS = {
    "NAME": "stands for any variable",
    "NAME_FILE": "stands for the file of any secret",
    "POSTGRES_*": "for a database in a container",
    "GUNICORN_CMD_ARGS": "Gunicorn reads it",
    "FLASK_*": "Flask reads them",
    "OTEL_TRACES_SAMPLER": "the SDK of OpenTelemetry reads it",
    "UV_*": "uv reads them",
    "PYTHONDONTWRITEBYTECODE": "Python reads it",
    "SSL_CERT_FILE": "whoever speaks TLS reads it",
    "SOURCE_DATE_EPOCH": "the Dockerfile and BuildKit read it",
    "VIRTUAL_ENV": "set by an active virtual environment",
    "LISTEN_FDS": "set by systemd where it hands over sockets",
    "HTTPS_*": "ports of the host, for Compose and nginx",
    "GRAFANA_PORT": "a port of the host, for Compose",
    "VERSION*": "the release, of make deploy; the name of a Debian",
    "RENEW*": "certbot and what is around it read them",
    "GF_*": "Grafana reads them",
    "COMPOSE_*": "Compose reads them",
    "RENEW_EVERY": "of the container that renews certificates",
    "RENEWED_LINEAGE": "certbot tells its hooks",
    "USER": "set by the shell",
    "PWD": "set by the shell",
    "PYTHON": "a variable of make",
    "RELEASE": "a variable of make",
    "ARGS": "a variable of make",
    "ANSWERS": "a variable of make",
    "MAKEOVERRIDES": "a variable of make",
    "GIT_*": "git reads them",
    "DEFAULT_GOAL": "a variable of make",
    "CN": "a field of certificates",
    "CONTENT_*": "WSGI's",
    "HTTP_*": "WSGI's",
    "PATH_INFO": "WSGI's",
    "QUERY_STRING": "WSGI's",
    "RAW_URI": "Gunicorn's, in WSGI's environ",
    "REMOTE_ADDR": "WSGI's",
    "REQUEST_METHOD": "WSGI's",
    "SERVER_*": "WSGI's",
    "PREFERRED_URL_SCHEME": "Flask's configuration",
    "PSYCOPG_WAIT_FUNC": "psycopg reads it",
    "PROPAGATE_EXCEPTIONS": "Flask's configuration",
    "SESSION_COOKIE_*": "Flask's configuration",
    "PERMANENT_SESSION_LIFETIME": "Flask's configuration",
    "SQLALCHEMY_*": "Flask's configuration",
    "TCP_*": "an option of sockets",
    "KEYS": "what a script of Redis is given",
    "ARGV": "what a script of Redis is given",
    "SQLITE_BUSY*": "errors of SQLite",
    "ON_ERROR_STOP": "a variable of psql",
    "TG_OP": "a variable of triggers",
    "RESTORED": "set by who follows docs/backup.md",
}
ASIDE = "tests/"  # made-up names are what tests are for

# Whoever runs a service has set these: none of them may go or get another name.
PROMISED = {
    *("APP_ENV", "APP_VERSION", "PORT", "LOG_LEVEL"),
    *("SECRET_KEY", "SECRET_KEY_FILE", "SECRET_KEY_FALLBACKS", "SECRET_KEY_FALLBACKS_FILE"),
    *("DATABASE_URL", "DATABASE_URL_FILE", "DATABASE_MIGRATION_URL", "DATABASE_MIGRATION_URL_FILE"),
    *("DATABASE_REPLICA_URL", "DATABASE_REPLICA_URL_FILE", "REDIS_URL", "REDIS_URL_FILE"),
    *("RATELIMIT_ENABLED", "RATELIMIT_WRITES", "RATELIMIT_ON_FAILURE"),
    *("TRUSTED_PROXY_HOPS", "TRUSTED_HOSTS", "SCRIPT_NAME", "READINESS_REQUIRED", "MAX_CONTENT_LENGTH", "API_DOCS"),
    *("METRICS_PORT", "METRICS_BIND", "PROMETHEUS_MULTIPROC_DIR"),
    *("SENTRY_DSN", "SENTRY_DSN_FILE", "SENTRY_TRACES_SAMPLE_RATE", "SENTRY_PROFILES_SAMPLE_RATE"),
    *("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    *("OTEL_TRACES_SAMPLER_ARG", "OTEL_SERVICE_NAME", "OTEL_SDK_DISABLED"),
    *("WEB_CONCURRENCY", "GUNICORN_WORKERS", "GUNICORN_WORKER_CLASS", "GUNICORN_THREADS"),
    *("GUNICORN_BIND", "GUNICORN_LOGLEVEL"),
}


@cache
def read_code(source: str) -> tuple[set[str], set[str]]:
    """The names that a Python source gives values to, and the attributes that it uses."""
    nodes = list(ast.walk(ast.parse(source)))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored, {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def find_misfits(files: Files) -> list[str]:
    """What `app/settings.py` and the files of a service do not agree about."""
    variables = read_settings(files[SETTINGS])
    every = {variable.name for variable in variables}
    every_file = {f"{variable.name}_FILE" for variable in variables if variable.secret}
    code = [read_code(text) for path, text in files.items() if path.endswith(".py")]
    constants, used = (set[str]().union(*names) for names in zip(*code, strict=True))

    found = [f"{SETTINGS}: reads no {name}, which was promised" for name in PROMISED - every - every_file]
    found += [f"{SETTINGS}: reads {item.name}, and nothing uses it" for item in variables if item.field not in used]
    groups = {EVERY: every, EVERY_FILE: every_file}
    for path in READERS.keys() & files.keys():
        find, needs = READERS[path]
        needed = set[str]().union(*(groups.get(need, {need}) for need in needs))
        found += [f"{path}: does not name {name}" for name in needed - find(files[path])]
    for path, text in files.items():
        unknown = names_in(path, text) - every - every_file - constants
        found += [f"{path}: names {name}, which nobody reads" for name in unknown if not find_others(name)]
    return sorted(found)


def names_in(path: str, text: str) -> set[str]:
    """All that looks like a variable in a file, also where its row in `READERS` would not look."""
    everywhere = strings if path.endswith(".py") else words
    return everywhere(text) | READERS.get(path, (everywhere, ()))[0](text)


def find_others(name: str) -> list[str]:
    """The rows of `OTHERS` about a name."""
    return [other for other in OTHERS if fnmatchcase(name, other)]


def read_files(folder: Path) -> Files:
    """The files of a rendered service."""
    paths = [path for path in would_track(folder) if not path.startswith(ASIDE)]
    return {path: (folder / path).read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_files_of_a_service_name_the_variables_that_it_reads_and_no_others(render: Render, variant: str) -> None:
    assert find_misfits(read_files(render(**VARIANTS[variant]))) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_about_the_settings_is_what_the_code_prints(render: Render, variant: str) -> None:
    service = render(**VARIANTS[variant])
    command = [sys.executable, "-B", "-S", "-m", "app.settings"]  # nothing installed, nothing left behind
    printed = subprocess.run(command, cwd=service, capture_output=True, check=True).stdout
    mend = f"Mend it in {SERVICE.name}/: python3 -B -m app.settings > docs/settings.md"
    assert (service / "docs" / "settings.md").read_bytes() == printed, mend


@pytest.fixture(scope="session")
def files(render: Render) -> Files:
    """Every file that a service may have, whatever the answers."""
    each = [{name: choice} for name, choices in CHOICES.items() for choice in choices]
    return {
        path: text for answers in [*VARIANTS.values(), *each] for path, text in read_files(render(**answers)).items()
    }


def test_every_row_is_about_a_file_that_is_there(files: Files) -> None:
    assert READERS.keys() <= files.keys()


def test_every_row_about_others_is_about_a_name_that_stands_somewhere(files: Files) -> None:
    named = {name for path, text in files.items() for name in names_in(path, text)}
    assert {other for name in named for other in find_others(name)} == set(OTHERS)


# Every defect that the tables are there for is planted and found.
VARIABLES = read_settings((SERVICE / SETTINGS).read_text(encoding="utf-8"))
GROUPS = {
    EVERY: [variable.name for variable in VARIABLES],
    EVERY_FILE: [f"{variable.name}_FILE" for variable in VARIABLES if variable.secret],
}
NEEDED = [(path, name) for path, (_, needs) in READERS.items() for need in needs for name in GROUPS.get(need, [need])]
PATHS = [path for path in listed(SERVICE) if not path.startswith(ASIDE)]


@pytest.mark.parametrize(("path", "name"), NEEDED)
def test_a_name_that_a_file_lost_is_found(files: Files, path: str, name: str) -> None:
    lost = re.sub(rf"\b{name}\b", "x", files[path])
    assert f"{path}: does not name {name}" in find_misfits({**files, path: lost})


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_was_invented_is_found_in_every_file(files: Files, path: str) -> None:
    (found,) = find_misfits({**files, path: f"{files[path]}\n# INVENTED_NAME\n"})
    assert found == f"{path}: names INVENTED_NAME, which nobody reads"


@pytest.mark.parametrize(
    "line",
    [
        *("export INVENTED=1", "INVENTED ?= 1", "Environment=INVENTED=1", "ENV INVENTED=1"),
        *("echo $INVENTED", "echo ${INVENTED}", "echo $(INVENTED)", "ask `INVENTED`"),
        *("  INVENTED: 1", "  - name: INVENTED", "  - INVENTED=1", "# INVENTED: 1"),
    ],
)
def test_a_name_that_was_invented_is_found_however_it_is_written(files: Files, line: str) -> None:
    planted = {**files, "docs/runbook.md": f"{files['docs/runbook.md']}\n{line}\n"}
    assert find_misfits(planted) == ["docs/runbook.md: names INVENTED, which nobody reads"]


@pytest.mark.parametrize(
    "line",
    ['os.environ["INVENTED"]', 'environ.get("INVENTED", "")', 'os.getenv("INVENTED")', '"INVENTED_NAME" in os.environ'],
)
def test_a_variable_that_is_read_past_the_settings_is_found(files: Files, line: str) -> None:
    (found,) = find_misfits({**files, "app/health.py": f"{files['app/health.py']}\nprint({line})\n"})
    assert found.startswith("app/health.py: names INVENTED")


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
def test_a_variable_that_is_read_no_more_is_found(files: Files, variable: Variable) -> None:
    found = find_misfits({**files, SETTINGS: files[SETTINGS].replace(f'"{variable.name}"', '"INVENTED_NAME"')})
    assert f"{SETTINGS}: reads no {variable.name}, which was promised" in found
    for path in (".env.example", "docs/settings.md"):
        assert f"{path}: names {variable.name}, which nobody reads" in found


def test_a_variable_that_is_read_and_neither_documented_nor_used_is_found(files: Files) -> None:
    mark = "    port: int = "
    row = '    invented: str = variable("INVENTED_NAME", text, secret=True)\n'
    assert find_misfits({**files, SETTINGS: files[SETTINGS].replace(mark, row + mark)}) == [
        ".env.example: does not name INVENTED_NAME",
        f"{SETTINGS}: reads INVENTED_NAME, and nothing uses it",
        "docs/settings.md: does not name INVENTED_NAME",
        "docs/settings.md: does not name INVENTED_NAME_FILE",
    ]
