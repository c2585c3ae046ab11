"""A database that will not do: one line that says what is wrong, where, and what helps, and never the password."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from boot.conftest import prepare
from boot.test_numbers import preflight
from support.postgres import PASSWORD, Postgres
from support.service import Service, free_port

pytestmark = pytest.mark.default_class
WRONG = "a-canary-too"
# What is done to a URL that is right, and the line that says so.
CANNOT = {
    "another password": ((PASSWORD, WRONG), r"the database {name} at 127.0.0.1:{port}: password authentication failed"),
    "an unknown user": (("//app:", "//nobody:"), 'password authentication failed for user "nobody". See that user'),
    "no such database": (
        ("{name}", "elsewhere"),
        'at 127.0.0.1:{port}: database "elsewhere" does not exist. Create it',
    ),
    "nobody listens": ((":{port}", ":1"), "at 127.0.0.1:1: Connection refused. See that it runs"),
    "no such host": (("127.0.0.1", "nowhere.invalid"), "at nowhere.invalid:{port}: failed to resolve host"),
    "no such option": (("{name}", "{name}?bogus=1"), 'invalid connection option "bogus". Mend its URL'),
    "no such port": ((":{port}", ":99999"), "at 127.0.0.1:99999: invalid port number"),
}
FEW = ("another password", "nobody listens")  # the others with --all
MALFORMED = {
    "a word": WRONG,
    "another database": f"mysql://app:{WRONG}@db/app",
    "an @ too many": f"postgresql://app:{WRONG}@{WRONG}@db/app",
    "no number for a port": f"postgresql://app:{WRONG}@db:{WRONG}/app",
}


def run(service: Service, *arguments: str) -> tuple[int, list[str], list[str]]:
    """The exit code of a `flask` command, and its lines on stdout and stderr; none tells a secret."""
    command = [str(service.venv / "bin" / "flask"), *arguments]
    done = subprocess.run(
        command, cwd=service.folder, env=service.all_environ, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert PASSWORD not in said
    assert WRONG not in said
    assert "Traceback" not in said
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.with_all) for name in CANNOT]
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(
    name: str, folder: Path, venv: Path, tmp_path: Path, database: str, postgres_server: Postgres
) -> None:
    (old, new), line = CANNOT[name]
    parts = {"name": database.rpartition("/")[2], "port": str(postgres_server.port)}
    url = database.replace(old.format(**parts), new.format(**parts))
    assert url != database
    service = prepare(folder, venv, tmp_path, {"DATABASE_URL": url})
    code, _, errors = run(service, "db", "upgrade")
    assert code == 1
    assert len(errors) == 1
    assert errors[0].startswith("Cannot use the database ")
    assert line.format(**parts) in errors[0]
    code, lines, errors = run(service, "preflight")
    assert (code, errors) == (1, [])
    assert [one for one in lines if one.startswith("FAIL  database") and line.format(**parts) in one]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_url_that_is_none_is_told_by_the_name_of_its_setting(
    name: str, folder: Path, venv: Path, tmp_path: Path
) -> None:
    settings = ("DATABASE_URL", "DATABASE_MIGRATION_URL", "DATABASE_REPLICA_URL")
    service = prepare(folder, venv, tmp_path, dict.fromkeys(settings, MALFORMED[name]))
    for command in (("db", "upgrade"), ("preflight",)):
        code, lines, errors = run(service, *command)
        assert code == 1
        assert [sum(setting in one for one in lines + errors) for setting in settings] == [1, 1, 1]


def test_migrations_name_the_database_that_they_are_for(
    folder: Path, venv: Path, tmp_path: Path, database: str
) -> None:
    past = f"postgresql://app:{WRONG}@127.0.0.1:{free_port()}/app"
    service = prepare(folder, venv, tmp_path, {"DATABASE_URL": database, "DATABASE_MIGRATION_URL": past})
    code, _, errors = run(service, "db", "upgrade")
    assert (code, len(errors)) == (1, 1)
    assert past.rpartition("@")[2].partition("/")[0] in errors[0]
    assert not preflight(service)["pooler"]["ok"]


def test_a_server_starts_without_its_database_and_says_so_in_a_line(
    folder: Path, venv: Path, tmp_path: Path, database: str
) -> None:
    with prepare(folder, venv, tmp_path, {"DATABASE_URL": database.replace(PASSWORD, WRONG)}) as service:
        assert service.get("/healthz/ready").status == 503
        assert service.wait_for_log(message=r"database is down \(OperationalError\)")["level"] == "ERROR"
        assert service.get("/api/items").status == 503
        assert WRONG not in service.output.read_text() + service.errors.read_text()


# A database of somebody else's


@pytest.mark.with_all
def test_a_table_that_is_not_ours_is_told_before_and_when_migrations_meet_it(
    folder: Path, venv: Path, tmp_path: Path, database: str, postgres_server: Postgres
) -> None:
    postgres_server.sql("CREATE TABLE items (sku text)", database)
    service = prepare(folder, venv, tmp_path, {"DATABASE_URL": database})
    found = preflight(service)["migrations"]
    assert "has a table items, which no migration of ours made" in str(found["detail"])
    code, lines, errors = run(service, "db", "upgrade")
    told = [json.loads(line)["message"] for line in lines if '"ERROR"' in line] + errors
    assert (code, len(told)) == (1, 1)
    assert 'relation "items" already exists. If another program made it, name a database' in told[0]


@pytest.mark.with_all
def test_the_migrations_of_another_project_are_told(
    folder: Path, venv: Path, tmp_path: Path, database: str, postgres_server: Postgres
) -> None:
    postgres_server.sql("CREATE TABLE alembic_version (version_num varchar(32))", database)
    postgres_server.sql("INSERT INTO alembic_version VALUES ('ab12cd34ef56')", database)
    service = prepare(folder, venv, tmp_path, {"DATABASE_URL": database})
    found = preflight(service)["migrations"]
    assert not found["ok"]
    assert "items.id" in str(found["detail"])
    code, lines, errors = run(service, "db", "upgrade")
    assert code == 1
    told = [json.loads(line)["message"] for line in lines if '"ERROR"' in line] + errors
    assert len(told) == 1
    assert "ab12cd34ef56" in told[0]


def test_a_column_that_is_gone_is_found_though_the_version_is_right(
    folder: Path, venv: Path, tmp_path: Path, migrated: str, postgres_server: Postgres
) -> None:
    service = prepare(folder, venv, tmp_path, {"DATABASE_URL": migrated})
    assert preflight(service)["migrations"]["ok"]
    postgres_server.sql("ALTER TABLE items DROP COLUMN version", migrated)
    found = preflight(service)["migrations"]
    assert not found["ok"]
    assert "the schema lacks items.version" in str(found["detail"])
