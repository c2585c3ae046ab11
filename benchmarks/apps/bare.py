"""What the service is compared with: a small Flask application with the same three routes, and nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from flask import jsonify, request
from flask_sqlalchemy import SQLAlchemy
from hello import app
from sqlalchemy import event, select

app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Item(db.Model):
    __tablename__ = "items"
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(100))
    quantity = db.Column(db.Integer)
    version = db.Column(db.Integer)
    created_at = db.Column(db.DateTime)
    updated_at = db.Column(db.DateTime)

    def to_dict(self):
        return {
            "id": self.id,
            "name": self.name,
            "quantity": self.quantity,
            "version": self.version,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


def tune(connection, _):
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):  # as the service, so that both wait for the disk alike
        connection.execute(f"PRAGMA {pragma}")


with app.app_context():
    event.listen(db.engine, "connect", tune)


@app.get("/api/items")
def list_items():
    limit = int(request.args.get("limit", 20))
    items = db.session.scalars(select(Item).where(Item.id > 0).order_by(Item.id).limit(limit + 1)).all()
    return jsonify(items=[item.to_dict() for item in items[:limit]], next_cursor=items[-1].id)


@app.post("/api/items")
def create_item():
    body, moment = request.get_json(), datetime.now(UTC)
    item = Item(name=body["name"], quantity=body["quantity"], version=1, created_at=moment, updated_at=moment)
    db.session.add(item)
    db.session.commit()
    return jsonify(item.to_dict()), 201
