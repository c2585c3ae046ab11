"""What `make migration` writes: the models' changes in a form that hurts nobody (docs/migrations.md)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.util import rev_id
from sqlalchemy import DateTime
from sqlalchemy.types import TypeEngine

from app.database import UtcDateTime
from app.extensions import db

UTC_TIME = "sa.DateTime(timezone=True)"


class OutsideTransaction(ops.MigrateOperation):
    """An operation on an index of a table that is in use: PostgreSQL does it without locking writers out."""

    def __init__(self, inner: ops.CreateIndexOp | ops.DropIndexOp) -> None:
        inner.kw["postgresql_concurrently"] = True
        self.inner = inner

    def reverse(self) -> OutsideTransaction:
        return OutsideTransaction(self.inner.reverse())


@renderers.dispatch_for(OutsideTransaction)
def render_outside_transaction(context: AutogenContext, operation: OutsideTransaction) -> list[str]:
    line = renderers.dispatch(operation.inner)(context, operation.inner)
    return ["with op.get_context().autocommit_block():", line, ""]


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """Write a column's type as every database understands it.

    A type of ours becomes what it is in the database: a migration outlives the code it was made by. What SQLite calls
    a type, where that is what models are compared with, becomes the type that is meant: DATETIME is none of
    PostgreSQL's. A time has its zone here, which SQLite does not keep.
    """
    if kind != "type":
        return False
    if isinstance(item, UtcDateTime):
        return UTC_TIME
    is_reflected = isinstance(item, TypeEngine) and type(item).__name__.isupper()
    if not is_reflected or context.dialect is None or context.dialect.name != "sqlite":
        return False
    meant = item.as_generic(allow_nulltype=True)
    return UTC_TIME if isinstance(meant, DateTime) else f"sa.{meant!r}"


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Leave a table or a column alone that no model has: instances of the last release use it until they are gone."""
    tables = db.metadata.tables
    if kind == "column":
        table = tables.get(parents["schema_qualified_table_name"])
        return table is None or name is None or name in table.columns
    return kind != "table" or name in tables


def shape(_context: object, _revision: object, directives: Iterable[Any]) -> None:
    """Write a migration for the schema, and one for each index of a table that is in use.

    PostgreSQL makes such an index outside of any transaction: whatever stood beside it in its migration would be done
    already when the migration is run again. An index goes before the column that it is of. Where the models have not
    changed nothing is written.
    """
    scripts: list[ops.MigrationScript] = directives  # type: ignore[assignment]
    (script,) = scripts
    (changes,) = script.upgrade_ops_list
    indexes = list(take_indexes(changes))
    script.downgrade_ops = changes.reverse()
    drops = [write(script, index, "drop") for index in indexes if isinstance(index.inner, ops.DropIndexOp)]
    creates = [write(script, index, "create") for index in indexes if isinstance(index.inner, ops.CreateIndexOp)]
    scripts[:] = [*drops, *([] if changes.is_empty() else [script]), *creates]
    for former, latter in pairwise(scripts):
        latter.head = former.rev_id


def take_indexes(operations: ops.UpgradeOps) -> Iterator[OutsideTransaction]:
    """Take the indexes of tables that were there before out of `operations`."""
    new = {operation.table_name for operation in operations.ops if isinstance(operation, ops.CreateTableOp)}
    for table in operations.ops:
        if isinstance(table, ops.ModifyTableOps) and table.table_name not in new:
            for index in list(table.ops):
                if isinstance(index, ops.CreateIndexOp | ops.DropIndexOp):
                    table.ops.remove(index)
                    yield OutsideTransaction(index)
    operations.ops[:] = [one for one in operations.ops if not (isinstance(one, ops.ModifyTableOps) and one.is_empty())]


def write(script: ops.MigrationScript, index: OutsideTransaction, verb: str) -> ops.MigrationScript:
    """A migration beside `script` that does this alone."""
    other = copy.copy(script)
    other.rev_id = rev_id()
    other.message = f"{script.message or 'Change'}: {verb} {index.inner.index_name}"
    other.upgrade_ops = ops.UpgradeOps([index])
    other.downgrade_ops = ops.DowngradeOps([index.reverse()])
    return other
