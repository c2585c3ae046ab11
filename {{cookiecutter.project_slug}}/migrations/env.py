"""How migrations run: `flask db upgrade` and `flask db migrate` call this with the service's database and models."""

from __future__ import annotations

from typing import Any

from alembic import context
from flask import current_app
from sqlalchemy import NullPool, create_engine

from app.database import CONNECT_TIMEOUT, autogenerate
from app.database.migrate import Run
from app.extensions import db
from app.settings import ANSWERS, Settings

settings: Settings = current_app.extensions["settings"]
# The engine's own, where a relative SQLite path is already the file that requests use.
url = settings.database_migration_url or db.engine.url
options: dict[str, Any] = {
    "target_metadata": db.metadata,
    "render_item": autogenerate.render_item,
    "include_name": autogenerate.include_name,
}

if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, transaction_per_migration=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    if getattr(context.config.cmd_opts, "autogenerate", False):
        options["process_revision_directives"] = autogenerate.shape
    # An engine of its own: a migration goes past a connection pooler and takes the time it needs.
    engine = create_engine(url, poolclass=NullPool)
    if engine.dialect.name == "postgresql":
        connect = {"connect_timeout": CONNECT_TIMEOUT, "application_name": f"{ANSWERS['slug']}-migrations"}
        engine = create_engine(url, poolclass=NullPool, connect_args={**connect, "prepare_threshold": None})
    with engine.connect() as connection:
        # SQLite changes a table by writing a new one.
        options["render_as_batch"] = connection.dialect.name == "sqlite"
        Run(connection, options, may_be_pooled=bool(settings.database_migration_url))()
