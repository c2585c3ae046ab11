"""`/api/items`: create, list, read, change and delete. The docstring of a view stands in the API's document."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, url_for
from sqlalchemy import func, select

from app import cache, database, limits, preconditions
from app.extensions import db
from app.idempotency import idempotent
from app.items.model import Item
from app.items.schema import ItemCreate, ItemPage, ItemShown, ItemSummary, ItemUpdate, Page
from app.observability.metrics import exporter
from app.validation import Operation

blueprint = Blueprint("items", __name__, url_prefix="/api/items")
LARGEST_ID = 2**63 - 1
SUMMARY = "items:summary"  # its key in the cache, forgotten after each write


@blueprint.post("")
@limits.writes
@exporter.counter(  # type: ignore[untyped-decorator]
    "items_created", "Requests to create an item, by outcome.", labels={"status": lambda r: r.status_code}
)
@cache.forgets(SUMMARY)
@idempotent
@Operation(body=ItemCreate, answer=ItemShown, status=201, versioned=True)
def create_item(body: ItemCreate) -> tuple[Item, dict[str, str]]:
    """Create an item."""
    item = Item(name=body.name, quantity=body.quantity)
    db.session.add(item)
    db.session.flush()  # @idempotent commits
    return item, {"Location": url_for("items.read_item", item_id=item.id)}


@blueprint.get("")
@database.read_only
@Operation(query=Page, answer=ItemPage)
def list_items(query: Page) -> dict[str, Any]:
    """List items.

    A page in the order of their numbers. It begins after a given item, so items that come and go shift no page: what
    was there before the first page was read, and is there after the last, stands on one page exactly, and nothing
    stands on two. What comes or goes meanwhile may be on a page or on none.
    """
    after = int(query.cursor or "0", 16)
    found = db.session.scalars(select(Item).where(Item.id > after).order_by(Item.id).limit(query.limit + 1)).all()
    items = found[: query.limit]
    return {"items": items, "next_cursor": f"{items[-1].id:016x}" if len(found) > len(items) else None}


@blueprint.get("/summary")
@Operation(answer=ItemSummary)
def summarize_items() -> dict[str, int]:
    """Count all items.

    It may be half a minute old.
    """
    summary: dict[str, int] = cache.get_or_compute(SUMMARY, 30, count_items)
    return summary


@blueprint.get("/<int:item_id>")
@Operation(answer=ItemShown, versioned=True)
def read_item(item_id: int) -> Item:
    """Read an item."""
    return find_item(item_id)


@blueprint.patch("/<int:item_id>")
@limits.writes
@cache.forgets(SUMMARY)
@Operation(body=ItemUpdate, answer=ItemShown, versioned=True, errors=(409, 412))
def update_item(item_id: int, body: ItemUpdate) -> Item:
    """Change an item."""
    item = find_item(item_id)
    preconditions.require_match(item.version)
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(item, name, value)
    preconditions.commit()
    return item


@blueprint.delete("/<int:item_id>")
@limits.writes
@cache.forgets(SUMMARY)
@Operation(status=204, errors=(409, 412))
def delete_item(item_id: int) -> tuple[str, int]:
    """Delete an item."""
    item = find_item(item_id)
    preconditions.require_match(item.version)
    db.session.delete(item)
    preconditions.commit()
    return "", 204


def count_items() -> dict[str, int]:
    count, quantity = db.session.execute(select(func.count(Item.id), func.coalesce(func.sum(Item.quantity), 0))).one()
    return {"items": count, "quantity": int(quantity)}


def find_item(item_id: int) -> Item:
    """The item, or 404; a number that no column can hold is one that no item has."""
    item = db.session.get(Item, item_id) if item_id <= LARGEST_ID else None
    return item or abort(404, "There is no such item.")
