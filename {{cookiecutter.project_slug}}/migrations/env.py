"""How migrations run: `flask db upgrade` calls this with the service's own database and models."""

from __future__ import annotations

from alembic import context
from flask import current_app
from sqlalchemy import NullPool, create_engine

from app.extensions import db
from app.settings import Settings

settings: Settings = current_app.extensions["settings"]
# The engine's own, where a relative SQLite path is already the file that requests use.
url = settings.database_migration_url or db.engine.url

if context.is_offline_mode():
    context.configure(url=url, target_metadata=db.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    # An engine of its own: a migration goes past a connection pooler and takes the time it needs.
    with create_engine(url, poolclass=NullPool).connect() as connection:
        # SQLite changes a table by writing a new one.
        batch = connection.dialect.name == "sqlite"
        context.configure(connection=connection, target_metadata=db.metadata, render_as_batch=batch)
        with context.begin_transaction():
            context.run_migrations()
