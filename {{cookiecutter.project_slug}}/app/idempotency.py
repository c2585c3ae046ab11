"""`Idempotency-Key`: a client that got no answer sends its POST again, and what it asks for is done once.

The header is that of draft-ietf-httpapi-idempotency-key-header-07. The key and the answer are stored in the transaction
that also does what was asked for: both are there or neither is, whatever is killed and when.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import wraps
from hashlib import sha256
from importlib import import_module
from typing import Any

from flask import Response, abort, current_app, g, request
from sqlalchemy import JSON, Integer, LargeBinary, delete, select, text, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column
from werkzeug.exceptions import Conflict

from app.clock import now
from app.database import CONNECT_TIMEOUT, UtcDateTime
from app.extensions import Model, db
from app.validation import Operation

KEPT = timedelta(days=1)  # at least; what is older goes by and by
PURGE_EVERY, PURGED = 100, 1000  # one in so many stored answers deletes at most so many old ones
KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")  # the draft's quoted strings are such, with their quotes
# A wait that was given up: lock_timeout and statement_timeout of PostgreSQL, busy_timeout of SQLite.
GIVEN_UP = {"55P03", "57014", "SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT"}
HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": f"^{KEY.pattern}$",
        "description": "Say a new UUID. Sent again with the same body, within a day, it does nothing and gets the first "
        "answer again, with `Idempotent-Replayed: true`; with another body it gets 422. Only success is kept: after "
        "an error the same key may be tried again. 409 while the first one is not done.",
    },
}
log = logging.getLogger(__name__)


class StoredAnswer(Model):
    """What was answered to a key. The answer is null until the transaction that made the row ends; none else sees it."""

    __tablename__ = "idempotency_keys"

    id: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary(32))
    status: Mapped[int | None] = mapped_column(Integer)
    headers: Mapped[list[tuple[str, str]] | None] = mapped_column(JSON)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)


class Busy(Conflict):
    """409 that says when to come again."""

    description = "A request with this Idempotency-Key is not done yet. Send it again in a moment."

    def get_headers(self, *args: Any, **options: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **options), ("Retry-After", "1")]


def idempotent(view: Callable[..., Any]) -> Callable[..., Response]:
    """Do what a view does once for each `Idempotency-Key`. It stands above the view's `@Operation`.

    The view only flushes: its writes are committed here, after its answer was made. What has to wait until then, like
    forgetting what a cache holds, stands in a decorator above this one or in `flask.after_this_request`.

    A request with a key that another one is busy with waits for its end, for five seconds at most. Without the header
    there is no statement more.
    """
    operation: Operation = view.__dict__["operation"]

    @wraps(view)
    def call(**values: Any) -> Response:
        sent = request.headers.get(HEADER["name"])
        if sent is None:
            return finish(current_app.make_response(view(**values)))
        key = digest(request.method, request.path, str(g.get("user_id", "")), read_key(sent))
        try:
            stored = claim(key, digest(request.query_string, request.get_data()))
            if stored:
                return stored
            transaction = db.session().get_transaction()
            response = current_app.make_response(view(**values))
            if db.session().get_transaction() is not transaction:
                raise RuntimeError(f"{view.__qualname__} ended the transaction that its Idempotency-Key is in")
            kept = {"status": response.status_code, "headers": list(response.headers), "body": response.get_data()}
            db.session.execute(update(StoredAnswer).values(kept).where(StoredAnswer.id == key))
            finish(response)
        except BaseException:
            db.session.rollback()  # now, and not when the client has its answer: it may be there again by then
            raise
        if secrets.randbelow(PURGE_EVERY) == 0:
            purge()
        return response

    call.__dict__["operation"] = replace(
        operation, headers=(*operation.headers, HEADER), errors=(*operation.errors, 400, 409, 422)
    )
    return call


def finish(response: Response) -> Response:
    """Commit if it says that it went well."""
    if response.status_code < 300:
        db.session.commit()
    else:
        db.session.rollback()
    return response


def read_key(sent: str) -> str:
    """The key that a client sent.

    Raises:
        HTTPException: 400, it is none.
    """
    if not KEY.fullmatch(sent):
        abort(400, "Idempotency-Key takes 1 to 255 visible characters of ASCII, like a UUID.")
    return sent


def digest(*parts: str | bytes) -> bytes:
    """32 bytes that stand for these parts and no others."""
    whole = sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        whole.update(b"%d:%b" % (len(raw), raw))
    return whole.digest()


def claim(key: bytes, fingerprint: bytes) -> Response | None:
    """Make the key ours, or give the answer that it has got.

    Raises:
        HTTPException: 422, it was for another body; 409, another request is still busy with it.
    """
    dialect = db.session().get_bind().dialect.name
    insert = import_module(f"sqlalchemy.dialects.{dialect}").insert  # the driver has it loaded
    row = insert(StoredAnswer).values(id=key, fingerprint=fingerprint).on_conflict_do_nothing()
    try:
        if dialect == "postgresql":
            db.session.execute(text(f"SET LOCAL lock_timeout = '{CONNECT_TIMEOUT}s'"))  # as SQLite has it
        if db.session.scalar(row.returning(StoredAnswer.id)):  # it waits for a transaction that has the same key
            return None
    except OperationalError as error:
        if {getattr(error.orig, name, "") for name in ("sqlstate", "sqlite_errorname")} & GIVEN_UP:
            raise Busy from None
        raise
    stored = db.session.get(StoredAnswer, key)
    if stored is None or stored.headers is None:
        raise Busy  # deleted just now as too old, or a view has committed by itself
    if stored.fingerprint != fingerprint:
        abort(422, "This Idempotency-Key was sent with another body before. Take a new one for another request.")
    return Response(stored.body, stored.status, [*stored.headers, ("Idempotent-Replayed", "true")])


def purge() -> None:
    """Delete some answers that are old enough, past those that somebody else deletes just now."""
    old = select(StoredAnswer.id).where(StoredAnswer.created_at < now() - KEPT).order_by(StoredAnswer.created_at)
    some = old.limit(PURGED).with_for_update(skip_locked=True)
    try:
        db.session.execute(delete(StoredAnswer).where(StoredAnswer.id.in_(some)))
        db.session.commit()
    except SQLAlchemyError:  # what the request asked for is done, and its answer stands
        db.session.rollback()
        log.warning("Old idempotency keys could not be deleted", exc_info=True)
