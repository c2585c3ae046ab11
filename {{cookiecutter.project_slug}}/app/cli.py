"""The `flask` commands: `db` for migrations, `preflight` before a deploy."""

from __future__ import annotations

import os

import click
from flask import Flask, current_app

from app.database import MIGRATIONS
from app.extensions import db


def init_app(app: Flask) -> None:
    """Add the commands where `flask` runs; a server would import Alembic and its templates for nothing."""
    if "FLASK_RUN_FROM_CLI" in os.environ:
        from flask_migrate import Migrate

        Migrate(app, db, directory=str(MIGRATIONS))
        app.cli.add_command(preflight)


@click.command
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def preflight(as_json: bool) -> None:
    """Check what a deploy would stumble over."""
    from app.preflight import examine, report

    raise SystemExit(report(examine(current_app), as_json))
