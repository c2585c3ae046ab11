"""Services on real servers of PostgreSQL, PgBouncer and Redis; they are started as those of `tests/boot` are."""

from __future__ import annotations

from boot.conftest import (  # noqa: F401  pytest finds its fixtures and hooks here
    changed,
    database,
    folder,
    migrated,
    migrated_template,
    on_redis,
    postgres_server,
    pytest_collection_modifyitems,
    redis_server,
    redis_url,
    send,
    service,
    shared_on_redis,
    start,
    trial,
    variant,
)
