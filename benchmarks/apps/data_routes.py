"""A SELECT and an INSERT in one request: copied into a rendered service as `app/both/routes.py`."""

from app.extensions import db
from app.items.model import Item
from app.items.schema import ItemCreate, ItemShown
from app.validation import Operation
from flask import Blueprint

blueprint = Blueprint("both", __name__, url_prefix="/both")


@blueprint.post("")
@Operation(body=ItemCreate, answer=ItemShown, status=201)
def read_and_create(body: ItemCreate) -> Item:
    db.session.get(Item, 1)
    item = Item(name=body.name, quantity=body.quantity)
    db.session.add(item)
    db.session.commit()
    return item
