"""The `flask` commands: `db` for migrations, `backfill` for many rows, `preflight` before a deploy."""

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
        app.cli.add_command(backfill)


@click.command
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def preflight(as_json: bool) -> None:
    """Check what a deploy would stumble over."""
    from app.preflight import examine, report

    raise SystemExit(report(examine(current_app), as_json))


@click.command
@click.argument("name")
def backfill(name: str) -> None:
    """Change many rows in small steps."""
    from app.backfill import find_backfills

    known = find_backfills()
    if name not in known:
        raise click.ClickException(f"There is no backfill {name}; there are: {', '.join(known) or 'none'}.")
    raise SystemExit(known[name].run())
