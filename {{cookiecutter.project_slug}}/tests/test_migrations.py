"""Migrations: they run both ways, there is one newest one, and what they make is what the models say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Column, Integer, Numeric, String, Table, inspect

from app.database import MIGRATIONS, UtcDateTime, _revisions
from app.extensions import db
from app.settings import ROOT
from tests.conftest import MakeApp, flask_db

lint: Any = import_module("scripts.lint_migrations").lint


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")


def tables(app: Flask) -> set[str]:
    with app.app_context():
        return set(inspect(db.engine).get_table_names())


def test_migrations_run_down_and_up_again(app: Flask) -> None:
    before = tables(app)
    flask_db(app, "downgrade", "base")
    assert tables(app) == {"alembic_version"}
    flask_db(app, "upgrade")
    assert tables(app) == before


def test_models_and_migrations_agree(app: Flask) -> None:
    """A difference is what `make migration` would write. A table or a column without a model is none: it is dropped a
    release after its model, when no running instance uses it any more. Until then an INSERT must do without it."""

    def is_needed(found: Any, _name: str | None, kind: str, reflected: bool, model: object) -> bool:
        if not reflected or model is not None:
            return True
        return kind == "column" and not found.nullable and found.server_default is None

    with app.app_context(), db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_needed})
        assert compare_metadata(context, db.metadata) == []


def test_there_is_one_newest_migration_and_readiness_knows_it() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    known, followed = _revisions()
    assert known == {revision.revision for revision in script.walk_revisions()}
    assert known - followed == set(script.get_heads())
    assert len(script.get_heads()) <= 1, "two branches added a migration each: let one follow the other"


def test_migrations_may_reach_the_database_another_way(make_app: MakeApp, tmp_path: Path) -> None:
    direct = f"sqlite:///{tmp_path}/direct.db"
    flask_db(make_app(DATABASE_MIGRATION_URL=direct), "upgrade")
    assert tables(make_app(DATABASE_URL=direct))
    assert not tables(make_app())


def test_a_written_migration_runs_and_drops_no_table_that_has_no_model(app: Flask, tmp_path: Path) -> None:
    """It names the types of the database: the code that it was made by will be another one day."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE of_an_older_release (id INTEGER PRIMARY KEY)")
    table = Table("of_this_test", db.metadata, Column("id", Integer, primary_key=True), Column("at", UtcDateTime))
    try:
        written = write_migration(app, folder)
        assert "of_this_test" in written
        assert "sa.DateTime(timezone=True)" in written
        assert "of_an_older_release" not in written
        flask_db(app, "upgrade", "-d", str(folder))
        assert tables(app) >= {"of_this_test", "of_an_older_release"}
        assert write_migration(app, folder) == "", "nothing has changed since, so nothing is written"
    finally:
        db.metadata.remove(table)


def test_what_is_written_hurts_nobody(app: Flask, tmp_path: Path) -> None:
    """An index of a table that is in use has a migration of its own, and types are those of every database."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    ours, newest = set(folder.glob("versions/*.py")), ScriptDirectory(str(folder)).get_current_head()
    columns = "id INTEGER PRIMARY KEY NOT NULL, seen DATETIME NOT NULL, price NUMERIC(10, 2) NOT NULL, gone BIGINT"
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE of_this_test ({columns})")
        connection.exec_driver_sql("CREATE INDEX ix_gone ON of_this_test (gone)")
    before = describe(app)
    seen, price = Column("seen", UtcDateTime, index=True), Column("price", Numeric(10, 2))
    name = Column("name", String(9), unique=True, index=True)
    table = Table("of_this_test", db.metadata, Column("id", Integer, primary_key=True), seen, price, name)
    try:
        write_migration(app, folder, "Turn to times")
    finally:
        db.metadata.remove(table)
    for mend in (["check", "--fix"], ["format"]):
        command = [sys.executable, "-m", "ruff", *mend, "--quiet", "--no-cache", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True)
    written = [path.read_text() for path in set(folder.glob("versions/*.py")) - ours]
    assert len([text for text in written if text.count("autocommit_block()") == 2]) == 3, "one an index, up and down"
    (schema,) = [text for text in written if "autocommit_block()" not in text]
    assert '"""Turn to times\n' in schema
    assert schema.count("existing_type=sa.DateTime(timezone=True)") == 2
    assert schema.count("existing_type=sa.Numeric(precision=10, scale=2)") == 2
    assert lint(folder / "versions") == []
    flask_db(app, "upgrade", "-d", str(folder))
    assert describe(app) == (before[0] | {"name"}, {"ix_of_this_test_seen", "ix_of_this_test_name"})
    assert newest is not None
    flask_db(app, "downgrade", newest, "-d", str(folder))
    assert describe(app) == before


def describe(app: Flask) -> tuple[set[str], set[str | None]]:
    """The columns and indexes of the table `of_this_test`."""
    with app.app_context():
        inspector = inspect(db.engine)
        columns, indexes = inspector.get_columns("of_this_test"), inspector.get_indexes("of_this_test")
    return {column["name"] for column in columns}, {index["name"] for index in indexes}


def write_migration(app: Flask, folder: Path, message: str = "A trial") -> str:
    """What `flask db migrate` writes."""
    before = set(folder.glob("versions/*.py"))
    flask_db(app, "migrate", "-m", message, "-d", str(folder))
    return "".join(path.read_text() for path in set(folder.glob("versions/*.py")) - before)
