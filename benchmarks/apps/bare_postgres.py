"""Bare Flask and bare SQLAlchemy on PostgreSQL: the statements of the service's items, and nothing around them."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from flask import jsonify, request
from hello import app
from sqlalchemy import BigInteger, DateTime, Integer, String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"), pool_size=4)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    quantity: Mapped[int] = mapped_column(Integer)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    def to_dict(self):
        return {
            "id": self.id,
            "name": self.name,
            "quantity": self.quantity,
            "version": self.version,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }


@app.get("/api/items/<int:number>")
def read_item(number: int):
    with Session(engine) as session:
        return jsonify(session.get(Item, number).to_dict())


@app.post("/both")
def read_and_create():
    body, moment = request.get_json(), datetime.now(UTC)
    with Session(engine, expire_on_commit=False) as session:
        session.get(Item, 1)
        item = Item(name=body["name"], quantity=body["quantity"], version=1, created_at=moment, updated_at=moment)
        session.add(item)
        session.commit()
        return jsonify(item.to_dict()), 201
