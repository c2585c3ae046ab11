"""Migrations: they run both ways, there is one newest one, and what they make is what the models say."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import inspect

from app.database import MIGRATIONS, _revisions
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
