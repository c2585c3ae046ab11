"""Take a backup of the database, and check that a restore of it has everything.

    .venv/bin/python -m scripts.backup take backup.dump     # writes backup.dump, and backup.json with its figures
    .venv/bin/python -m scripts.backup check backup.dump    # holds the database at DATABASE_URL against backup.json

The figures are those of the very moment that the dump shows, so that they agree also while others write. The database
is DATABASE_MIGRATION_URL, or else DATABASE_URL: pg_dump needs one session, which a pooler does not give.
docs/backup.md says how to use it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from app.settings import find_value

Figures = dict[str, dict[str, Any]]
TABLES = """
SELECT schemaname, tablename, EXISTS (
    SELECT FROM information_schema.columns
    WHERE table_schema = schemaname AND table_name = tablename AND column_name = 'updated_at')
FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2
"""
# The sum over all rows is the same in whatever order they are stored, and another one if any value is.
CONTENT = "SELECT count(*), coalesce(sum(hashtextextended(row::text, 0)), 0)::text, {newest} FROM {table} AS row"


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["take", file]:
                return take(Path(file))
            case ["check", file]:
                return check(Path(file))
    except (OSError, psycopg.Error) as error:
        sys.exit(str(error).strip())
    print(__doc__)
    return 2


def find_url() -> str:
    environ = [os.environ]
    url = find_value("DATABASE_MIGRATION_URL", environ, True) or find_value("DATABASE_URL", environ, True)
    if not url:
        sys.exit("DATABASE_URL: is missing; export DATABASE_URL=postgresql://USER:PASSWORD@HOST:5432/NAME")
    return url.replace("+psycopg", "", 1)


def connect(url: str) -> psycopg.Connection[Any]:
    """A transaction that sees one moment of the database, and in which times look alike on every server."""
    connection = psycopg.connect(url, options="-c timezone=UTC")
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def take(file: Path) -> int:
    """Write the dump, and beside it the figures of what is in it."""
    where = conninfo_to_dict(url := find_url())
    password = str(where.pop("password", None) or "")  # not among the arguments of a program: ps shows those
    with connect(url) as connection:
        (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
        command = ["pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={file}"]
        command += [f"--dbname={make_conninfo('', **where)}"]
        done = subprocess.run(command, env={**os.environ, "PGPASSWORD": password}, check=False)
        if done.returncode:
            return done.returncode
        file.with_suffix(".json").write_text(json.dumps(count(connection), indent=2))
    return 0


def check(file: Path) -> int:
    """Print each table, and say what is not as it was; 1 if anything is not."""
    expected: Figures = json.loads(file.with_suffix(".json").read_text())
    with connect(find_url()) as connection:
        found = count(connection)
    wrong = [table for table in {**expected, **found} if expected.get(table) != found.get(table)]
    for table, figures in found.items():
        newest = f", the newest of {figures['newest']}" if figures["newest"] else ""
        print(f"{table}: {figures['rows']} rows{newest}")
    for table in wrong:
        print(f"WRONG {table}: the backup has {expected.get(table)}, this database {found.get(table)}")
    print(f"{len(wrong)} tables are not as they were." if wrong else "Everything is as it was.")
    return int(bool(wrong))


def count(connection: psycopg.Connection[Any]) -> Figures:
    """Rows, content and newest `updated_at` of each table."""
    figures: Figures = {}
    for schema, table, has_times in connection.execute(TABLES).fetchall():
        newest = SQL("max(updated_at)::text" if has_times else "NULL")
        statement = SQL(CONTENT).format(newest=newest, table=Identifier(schema, table))
        rows, content, moment = connection.execute(statement).fetchone() or (0, "", None)
        figures[f"{schema}.{table}"] = {"rows": rows, "content": content, "newest": moment}
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
