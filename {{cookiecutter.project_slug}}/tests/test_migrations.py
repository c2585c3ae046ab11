"""Migrations: they run both ways, there is one newest one, and what they make is what the models say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Column, Integer, Table, inspect

from app.database import MIGRATIONS, UtcDateTime, _revisions
from app.extensions import db
from tests.conftest import MakeApp, flask_db


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
    """A difference is what `make migration` would write. A table without a model is none: it is dropped a release
    after its model, when no running instance uses it any more."""

    def has_model(_object: object, _name: str | None, kind: str, reflected: bool, model: object) -> bool:
        return kind != "table" or not reflected or model is not None

    with app.app_context(), db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": has_model})
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


def write_migration(app: Flask, folder: Path) -> str:
    """What `flask db migrate` writes."""
    before = set(folder.glob("versions/*.py"))
    flask_db(app, "migrate", "-d", str(folder))
    return "".join(path.read_text() for path in set(folder.glob("versions/*.py")) - before)
