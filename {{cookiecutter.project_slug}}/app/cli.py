"""The `flask` commands: `db` for migrations, `backfill` for many rows, `preflight` before a deploy."""

from __future__ import annotations

import os
import sys
from types import TracebackType

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
        end_in_a_line(app)


def end_in_a_line(app: Flask) -> None:
    """Have a command that the database ends say why in one line; what a traceback says better keeps it."""
    from sqlalchemy import make_url

    from app.database.errors import explain

    settings, otherwise = app.extensions["settings"], sys.excepthook
    past_pooler = sys.argv[1:2] == ["db"] and settings.database_migration_url
    url = make_url(past_pooler or settings.database_url)

    def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        line = explain(error, url)
        if line:
            click.echo(line, err=True)
        else:
            otherwise(kind, error, traceback)

    sys.excepthook = tell  # Python's exit code stays 1


@click.command
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--skip", multiple=True, metavar="CHECK", help="Leave a check out: migrations, before they are run.")
def preflight(as_json: bool, skip: tuple[str, ...]) -> None:
    """Check what a deploy would stumble over."""
    from app.preflight import examine, report

    raise SystemExit(report(examine(current_app, skip), as_json))


@click.command
@click.argument("name")
def backfill(name: str) -> None:
    """Change many rows in small steps."""
    from app.database.backfill import find_backfills

    known = find_backfills()
    if name not in known:
        raise click.ClickException(f"There is no backfill {name}; there are: {', '.join(known) or 'none'}.")
    raise SystemExit(known[name].run())
