"""How migrations run: `flask db upgrade` and `flask db migrate` call this with the service's database and models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrationScript
from flask import current_app
from sqlalchemy import NullPool, create_engine

from app.database import UtcDateTime
from app.extensions import db
from app.settings import Settings


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Write a column type of ours as what it is in the database: a migration outlives the code it was made by."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave a table alone that no model has: instances of the last release read it until they are gone."""
    return kind != "table" or name in db.metadata.tables


def drop_empty(_context: object, _revision: object, directives: Iterable[Any]) -> None:
    """Write no migration where the models have not changed."""
    scripts: list[MigrationScript] = directives  # type: ignore[assignment]
    if scripts[0].upgrade_ops is not None and scripts[0].upgrade_ops.is_empty():
        scripts.clear()


settings: Settings = current_app.extensions["settings"]
# The engine's own, where a relative SQLite path is already the file that requests use.
url = settings.database_migration_url or db.engine.url
options: dict[str, Any] = {
    "target_metadata": db.metadata,
    "render_item": render_item,
    "include_name": include_name,
}

if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    if getattr(context.config.cmd_opts, "autogenerate", False):
        options["process_revision_directives"] = drop_empty
    # An engine of its own: a migration goes past a connection pooler and takes the time it needs.
    with create_engine(url, poolclass=NullPool).connect() as connection:
        # SQLite changes a table by writing a new one.
        batch = connection.dialect.name == "sqlite"
        context.configure(connection=connection, render_as_batch=batch, **options)
        with context.begin_transaction():
            context.run_migrations()
