"""The part of `flask preflight` that only the database can tell. Each docstring names the outage without the check."""

from __future__ import annotations

from flask import Flask
from sqlalchemy import Connection, Engine, NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app import database
from app.capacity import Plan, load_answers
from app.database.errors import explain
from app.database.postgres import is_pooled
from app.extensions import db
from app.settings import Settings

# How many connections a PostgreSQL accepts from us: all, less those that it keeps for administrators.
ACCEPTED = """
SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings
WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections')
"""
SILENT = (False, "the database did not tell", "see check database")


def check_database(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """Without it every request fails."""
    for engine in db.engines.values():
        try:
            database.ping(engine)
        except SQLAlchemyError as error:
            return False, explain(error, engine.url) or type(error).__name__, "see that its URL is right"
    return True, " and ".join(f"{place(engine)} answers" for engine in db.engines.values()), ""


def check_migrations(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """Every new instance would stay out of rotation, so that a rollout stands still; or each request would fail."""
    heads = database.heads()
    if len(heads) > 1:
        return False, f"{len(heads)} newest migrations: {', '.join(sorted(heads))}", "flask db merge heads"
    try:
        behind = database.compare_schema() == "behind"
        with db.engine.connect() as connection:
            lacking, strange = compare_tables(connection)
            invalid = database.invalid_indexes(connection)
    except SQLAlchemyError:
        return SILENT
    mend = "name a database of this service's own in DATABASE_URL"
    if strange:
        return False, f"{place(db.engine)} has {strange[0]}, which no migration of ours made", mend
    if invalid:
        found = f"an invalid index, which every write keeps up in vain: {', '.join(invalid)}"
        return False, found, database.drop_indexes(invalid)
    if behind:
        return False, "the schema is behind this release", "flask db upgrade"
    if lacking:
        return False, f"the schema lacks {', '.join(lacking)}, though it says that it is not behind this release", mend
    return True, "the schema is up to date", ""


def check_connections(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """Under load the last instances get no connection and fail, while the first ones sit on theirs."""
    if db.engine.dialect.name != "postgresql":
        return True, f"{db.engine.dialect.name} has no limit", ""
    try:
        found = [count_connections(engine, settings.plan()) for engine in db.engines.values()]
    except SQLAlchemyError:
        return SILENT
    wrong = [mend for ok, _, mend in found if not ok]
    return not wrong, "; ".join(detail for _, detail, _ in found), "; ".join(wrong)


def check_pooler(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """Two migrations run at once: the lock that one takes stays with a connection that a pooler has given to others."""
    url = settings.database_migration_url or settings.database_url
    if url.startswith("sqlite"):
        return True, "none", ""
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": database.CONNECT_TIMEOUT})
    try:
        with engine.connect() as connection:
            pooled = is_pooled(connection)
    except DBAPIError as error:
        return False, explain(error, engine.url) or type(error).__name__, "see that DATABASE_MIGRATION_URL is right"
    if pooled:
        mend = "export DATABASE_MIGRATION_URL=postgresql://USER:PASSWORD@HOST:5432/NAME, past the pooler"
        return False, f"migrations go through the pooler at {engine.url.host}:{engine.url.port}", mend
    return True, "migrations go past it" if settings.database_migration_url else "none", ""


def place(engine: Engine) -> str:
    """The database by its name and host, without user and password."""
    url = engine.url
    return f"{engine.dialect.name} {url.database}" + (f" at {url.host}:{url.port or 5432}" if url.host else "")


def compare_tables(connection: Connection) -> tuple[list[str], list[str]]:
    """The columns of our models that the schema lacks; and their tables, where no migrations ever ran."""
    schema = inspect(connection)
    present = [table for table in db.metadata.sorted_tables if schema.has_table(table.name)]
    if not schema.has_table("alembic_version"):
        return [], [f"a table {table.name}" for table in present]
    found = {f"{table.name}.{column['name']}" for table in present for column in schema.get_columns(table.name)}
    wanted = [str(column) for table in db.metadata.sorted_tables for column in table.columns]
    return [column for column in wanted if column not in found], []


def count_connections(engine: Engine, plan: Plan) -> tuple[bool, str, str]:
    """What all instances open at most, held against what the server accepts, and a pooler where one is in between."""
    replicas = int(load_answers()["max_replicas"])
    needed, name = plan.connections(replicas), "pooler's" if engine is db.engine else "replica's"
    with engine.connect() as connection:
        accepted = int(connection.execute(text(ACCEPTED)).scalar_one())
        pooled = is_pooled(connection)
    detail = f"{replicas} replicas open up to {needed} of {accepted} connections"
    if not pooled:
        return needed <= accepted, detail, f"ALTER SYSTEM SET max_connections = {needed + 3}, or a pooler in front"
    limits = ask_pooler(engine)
    clients, servers = limits.get("max_client_conn", needed), limits.get("default_pool_size", plan.pooled(replicas))
    told = "" if limits else " (it did not tell: of these numbers it should have)"
    detail = f"{replicas} replicas open up to {needed} of the {clients} connections to the pooler, which opens up to "
    detail += f"{servers} of {accepted} to the database{told}"
    mend = f"set max_client_conn = {needed}, default_pool_size = {min(servers, accepted)} in the {name} pgbouncer.ini"
    return needed <= clients and servers <= accepted, detail, mend


def ask_pooler(engine: Engine) -> dict[str, int]:
    """PgBouncer's own numbers, if our user may ask for them (`stats_users`); nothing of another pooler."""
    args, options = engine.dialect.create_connect_args(engine.url.set(database="pgbouncer"))
    try:
        with engine.dialect.loaded_dbapi.connect(*args, **options, autocommit=True) as console:
            shown = console.execute("SHOW CONFIG").fetchall()
    except engine.dialect.loaded_dbapi.Error:
        return {}
    return {name: int(value) for name, value, *_ in shown if name in ("max_client_conn", "default_pool_size")}
