"""A feature for trials: copied into a rendered service as `app/trial/routes.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator

from app import idempotency
from app.extensions import db
from app.observability import logs
from flask import Blueprint, Response, abort, after_this_request, current_app, g, jsonify, request
from sqlalchemy import event, text

blueprint = Blueprint("trial", __name__, url_prefix="/trial")
LOCK = threading.Lock()  # made when the application is imported
BUFFER: list[object] = []


@blueprint.get("/runtime")
def runtime() -> Response:
    locks = {type(getattr(lock, "_block", lock)).__module__ for lock in (LOCK, logs._threads)}
    return jsonify(locks=sorted(locks), gevent=any(name.startswith("gevent") for name in sys.modules))


@blueprint.get("/sleep/<float:seconds>")
def sleep(seconds: float) -> Response:
    time.sleep(seconds)
    return jsonify(pid=os.getpid())


@blueprint.get("/sleep-async/<float:seconds>")
async def sleep_async(seconds: float) -> Response:
    await asyncio.sleep(seconds)
    return jsonify(pid=os.getpid())


@blueprint.get("/query-async/<float:seconds>")
async def query_async(seconds: float) -> Response:
    await asyncio.sleep(0)
    return query(seconds)


@blueprint.get("/spin/<float:seconds>")
def spin(seconds: float) -> Response:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return jsonify(pid=os.getpid())


@blueprint.get("/query/<float:seconds>")
def query(seconds: float) -> Response:
    db.session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    return jsonify(pid=os.getpid())


@blueprint.get("/tell")
def tell() -> Response:
    time.sleep(0.05)  # others begin meanwhile
    logging.getLogger("app.trial").warning(request.headers["X-Request-ID"])
    return jsonify(pid=os.getpid())


@blueprint.get("/fail-async")
async def fail_async() -> Response:
    raise ZeroDivisionError("kept from the client")


@blueprint.get("/block-the-loop/<float:seconds>")
def block_the_loop(seconds: float) -> Response:
    request.environ["wsgi.input"].raw.loop.call_soon_threadsafe(time.sleep, seconds)
    return jsonify(pid=os.getpid())


@blueprint.get("/exit")
def leave() -> Response:
    raise SystemExit("a library that gives up")


@blueprint.get("/fail")
def fail() -> Response:
    raise ZeroDivisionError("kept from the client\nsecond line \ud800")


@blueprint.get("/warn")
def warn() -> Response:
    warnings.warn("deprecated, says a library", DeprecationWarning, stacklevel=1)
    return jsonify(pid=os.getpid())


@blueprint.get("/teapot")
def teapot() -> Response:
    abort(429, description="Slow down.")


@blueprint.get("/client")
def client() -> Response:
    g.user_id = "user-7"
    return jsonify(
        address=request.remote_addr, scheme=request.scheme, host=request.host, root=request.script_root, pid=os.getpid()
    )


@blueprint.get("/stream/<int:chunks>")
def stream(chunks: int) -> Response:
    def body() -> Iterator[bytes]:
        for _ in range(chunks):
            time.sleep(0.1)
            yield b"x" * 1000

    return Response(body())


@blueprint.get("/break-off")
def break_off() -> Response:
    def body() -> Iterator[bytes]:
        yield b"x" * 1000
        raise LookupError("when the head was sent")

    return Response(body())


@blueprint.get("/endless")
def endless() -> Response:
    def body() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            logging.getLogger("app.trial").warning("the endless stream was closed")

    return Response(body())


@blueprint.post("/size")
def size() -> Response:
    return jsonify(size=sum(map(len, iter(lambda: request.stream.read(65536), b""))))


@blueprint.get("/path/<path:path>")
def show_path(path: str) -> Response:
    return jsonify(path=path, query=request.query_string.decode("latin-1"))


@blueprint.post("/echo")
def echo() -> Response:
    return Response(request.get_data())


@blueprint.post("/ignore")
def ignore() -> Response:
    return jsonify(pid=os.getpid())


@blueprint.get("/redis")
def use_redis() -> Response:
    return jsonify(count=current_app.extensions["redis"].incr("count"))


@blueprint.post("/lose/<word>")
def lose(word: str) -> Response:
    g.user_id = "user-7"
    local = request.get_data(as_text=True)
    raise LookupError(f"lost {word} of {len(local)}")


@blueprint.get("/trace")
def trace() -> Response:
    time.sleep(0.01)
    raise LookupError("in a thread that had other requests before")


@blueprint.post("/mortal")
def create_and_die() -> Response:
    """Create an item as `POST /api/items` does, in a process that is killed before or after the commit."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if request.headers.get("Die") == "before the commit":
        event.listen(db.session(), "before_commit", die)
    if request.headers.get("Die") == "after the commit":
        after_this_request(die)
    return current_app.view_functions["items.create_item"]()


@blueprint.post("/purge")
def purge() -> Response:
    idempotency.purge()
    return jsonify(pid=os.getpid())


@blueprint.post("/write-behind")
def write_behind() -> tuple[Response, int]:
    """A defect: acknowledge what is kept in memory, to be written together with others later."""
    BUFFER.append(request.get_json())
    return jsonify(BUFFER[-1]), 201


@blueprint.patch("/unguarded/<int:number>")
def change_unguarded(number: int) -> Response:
    """A defect: write without a look at what others wrote meanwhile."""
    quantity = request.get_json()["quantity"]
    db.session.execute(text("UPDATE items SET quantity = :new WHERE id = :id"), {"new": quantity, "id": number})
    db.session.commit()
    return jsonify(quantity=quantity)


@blueprint.get("/by-offset")
def list_by_offset() -> Response:
    """A defect: pages that are counted from the first row, which shift when one before them goes."""
    offset = int(request.args.get("cursor") or 0)
    rows = db.session.execute(
        text("SELECT id, name FROM items ORDER BY id LIMIT :limit OFFSET :offset"),
        {"limit": int(request.args["limit"]), "offset": offset},
    ).all()
    return jsonify(items=[dict(row._mapping) for row in rows], next_cursor=offset + len(rows) if rows else None)
