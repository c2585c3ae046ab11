"""The `flask` commands: `db` for migrations."""

from __future__ import annotations

import os

from flask import Flask

from app.database import MIGRATIONS
from app.extensions import db


def init_app(app: Flask) -> None:
    """Add the commands where `flask` runs; a server would import Alembic and its templates for nothing."""
    if "FLASK_RUN_FROM_CLI" in os.environ:
        from flask_migrate import Migrate

        Migrate(app, db, directory=str(MIGRATIONS))
