"""`/api/items`: create, list, read, change and delete."""

from __future__ import annotations

import base64
import binascii

from flask import Blueprint, Response, abort, jsonify, url_for
from sqlalchemy import select
from sqlalchemy.orm.exc import StaleDataError

from app.errors import Invalid
from app.extensions import db
from app.items.model import Item
from app.items.schema import ItemCreate, ItemUpdate, Page
from app.observability.metrics import exporter
from app.validation import read_body, read_query

blueprint = Blueprint("items", __name__, url_prefix="/api/items")
LARGEST_ID = 2**63 - 1


@blueprint.post("")
@exporter.counter(  # type: ignore[untyped-decorator]
    "items_created", "Requests to create an item, by outcome.", labels={"status": lambda r: r.status_code}
)
def create_item() -> tuple[Response, int, dict[str, str]]:
    body = read_body(ItemCreate)
    item = Item(name=body.name, quantity=body.quantity)
    db.session.add(item)
    db.session.commit()
    return jsonify(item.to_dict()), 201, {"Location": url_for("items.read_item", item_id=item.id)}


@blueprint.get("")
def list_items() -> Response:
    """A page in the order of creation. It begins after a given id, so rows that come and go shift no page."""
    page = read_query(Page)
    query = select(Item).where(Item.id > decode_cursor(page.cursor)).order_by(Item.id).limit(page.limit + 1)
    items = db.session.scalars(query).all()
    more = len(items) > page.limit
    items = items[: page.limit]
    return jsonify(
        items=[item.to_dict() for item in items],
        next_cursor=encode_cursor(items[-1].id) if more else None,
    )


@blueprint.get("/<int:item_id>")
def read_item(item_id: int) -> Response:
    return jsonify(find_item(item_id).to_dict())


@blueprint.patch("/<int:item_id>")
def update_item(item_id: int) -> Response:
    body = read_body(ItemUpdate)
    item = find_item(item_id)
    for name, value in body.model_dump(exclude_unset=True).items():
        setattr(item, name, value)
    try:
        db.session.commit()
    except StaleDataError:
        abort(409, "The item was changed by somebody else meanwhile. Read it again, then repeat the change.")
    return jsonify(item.to_dict())


@blueprint.delete("/<int:item_id>")
def delete_item(item_id: int) -> tuple[str, int]:
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


def encode_cursor(item_id: int) -> str:
    return base64.urlsafe_b64encode(str(item_id).encode()).decode()


def decode_cursor(cursor: str) -> int:
    """The id that a page begins after; 0 for the first page.

    Raises:
        Invalid: it is not a cursor of ours.
    """
    if not cursor:
        return 0
    try:
        item_id = int(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        item_id = -1
    if not 0 <= item_id <= LARGEST_ID:
        raise Invalid([{"pointer": "/cursor", "detail": "is no cursor: pass next_cursor of the page before"}])
    return item_id
