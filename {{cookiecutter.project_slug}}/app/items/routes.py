"""`/api/items`: create, list, read, change and delete. The docstring of a view stands in the API's document."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, abort, url_for
from sqlalchemy import select
from sqlalchemy.orm.exc import StaleDataError

from app import database
from app.extensions import db
from app.items.model import Item
from app.items.schema import ItemCreate, ItemPage, ItemShown, ItemUpdate, Page
from app.observability.metrics import exporter
from app.validation import Operation

blueprint = Blueprint("items", __name__, url_prefix="/api/items")
LARGEST_ID = 2**63 - 1


@blueprint.post("")
@exporter.counter(  # type: ignore[untyped-decorator]
    "items_created", "Requests to create an item, by outcome.", labels={"status": lambda r: r.status_code}
)
@Operation(body=ItemCreate, answer=ItemShown, status=201)
def create_item(body: ItemCreate) -> tuple[Item, dict[str, str]]:
    """Create an item."""
    item = Item(name=body.name, quantity=body.quantity)
    db.session.add(item)
    db.session.commit()
    return item, {"Location": url_for("items.read_item", item_id=item.id)}


@blueprint.get("")
@database.read_only
@Operation(query=Page, answer=ItemPage)
def list_items(query: Page) -> dict[str, Any]:
    """List items.

    A page in the order of creation. It begins after a given item, so items that come and go shift no page.
    """
    after = int(query.cursor or "0", 16)
    found = db.session.scalars(select(Item).where(Item.id > after).order_by(Item.id).limit(query.limit + 1)).all()
    items = found[: query.limit]
    return {"items": items, "next_cursor": f"{items[-1].id:016x}" if len(found) > len(items) else None}


@blueprint.get("/<int:item_id>")
@Operation(answer=ItemShown)
def read_item(item_id: int) -> Item:
    """Read an item."""
    return find_item(item_id)


@blueprint.patch("/<int:item_id>")
@Operation(body=ItemUpdate, answer=ItemShown, errors=(409,))
def update_item(item_id: int, body: ItemUpdate) -> Item:
    """Change an item."""
    item = find_item(item_id)
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(item, name, value)
    try:
        db.session.commit()
    except StaleDataError:
        abort(409, "The item was changed by somebody else meanwhile. Read it again, then repeat the change.")
    return item


@blueprint.delete("/<int:item_id>")
@Operation(status=204, errors=(409,))
def delete_item(item_id: int) -> tuple[str, int]:
    """Delete an item."""
    db.session.delete(find_item(item_id))
    try:
        db.session.commit()
    except StaleDataError:
        abort(409, "The item was changed by somebody else meanwhile. Read it again, then repeat the deletion.")
    return "", 204


def find_item(item_id: int) -> Item:
    """The item, or 404; a number that no column can hold is one that no item has."""
    item = db.session.get(Item, item_id) if item_id <= LARGEST_ID else None
    return item or abort(404, "There is no such item.")
