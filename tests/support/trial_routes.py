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
from datetime import UTC, datetime
from pathlib import Path

from app import cache, database, idempotency, limits
from app.extensions import db
from app.items.model import Item
from app.observability import logs
from flask import (
    Blueprint,
    Response,
    abort,
    after_this_request,
    current_app,
    g,
    jsonify,
    render_template_string,
    request,
    session,
)
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


@blueprint.get("/connection")
def connection() -> Response:
    """Who asks, who answers, and with which limits."""
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_read_only")
    row = db.session.execute(
        text(f"SELECT pg_backend_pid(), pg_is_in_recovery(), {', '.join(f'current_setting({n!r})' for n in names)}")
    ).one()
    return jsonify(worker=os.getpid(), backend=row[0], replica=row[1], **dict(zip(names, row[2:], strict=True)))


@blueprint.get("/read-only")
@database.read_only
def read_only() -> Response:
    return connection()


@blueprint.get("/read-only-async")
@database.read_only
async def read_only_async() -> Response:
    return connection()


@blueprint.get("/read-only/<float:seconds>")
@database.read_only
def read_slowly(seconds: float) -> Response:
    db.session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    return connection()


@blueprint.get("/read-only-writes")
@database.read_only
def read_only_writes() -> Response:
    db.session.add(Item(name="Bolt", quantity=1))
    db.session.commit()
    return jsonify(pid=os.getpid())


@blueprint.before_request
def write_first() -> None:
    if request.headers.get("X-Writes") == "an object":
        db.session.add(Item(name="Bolt", quantity=1))
        db.session.commit()
    elif request.headers.get("X-Writes") == "text":
        db.session.execute(text("UPDATE items SET quantity = quantity"))
        db.session.commit()
    elif request.headers.get("X-Writes") == "nothing":
        db.session.get(Item, 1)


@blueprint.get("/hold/<float:seconds>")
def hold(seconds: float) -> Response:
    """A transaction in which nothing happens for a while."""
    db.session.execute(text("LOCK TABLE items IN ACCESS EXCLUSIVE MODE"))
    time.sleep(seconds)
    return connection()


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


@blueprint.get("/everything")
@limits.writes
def use_everything() -> Response:
    """What a request can ask of Redis: a session, a limit and a value of the cache."""
    session["seen"] = True
    return jsonify(pid=os.getpid(), value=cache.get_or_compute("everything", 30, lambda: 1))


@blueprint.get("/cached/<key>")
def show_cached(key: str) -> Response:
    """What stands in `source`, computed while there is no `hold`; `computed` gets a line for each time."""
    folder = Path(request.args["folder"])

    def compute() -> str:
        value = (folder / "source").read_text()
        with (folder / "computed").open("a") as computed:
            computed.write(f"{os.getpid()}\n")
        while (folder / "hold").exists():
            time.sleep(0.01)
        if not value:
            raise LookupError("there is nothing in the source")
        return value

    return jsonify(value=cache.get_or_compute(key, 30, compute))


@blueprint.get("/forget/<key>")
def forget(key: str) -> Response:
    cache.forget(key)
    return jsonify(pid=os.getpid())


@blueprint.post("/lose/<word>")
def lose(word: str) -> Response:
    g.user_id = "user-7"
    local = request.get_data(as_text=True)
    raise LookupError(f"lost {word} of {len(local)}")


@blueprint.get("/trace")
def trace() -> Response:
    time.sleep(0.01)
    raise LookupError("in a thread that had other requests before")


# Sessions and forms


@blueprint.get("/login")
def show_login() -> str:
    return render_template_string(
        '<form method="post"><input name="user"><input type="hidden" name="csrf_token" value="{{ csrf_token() }}"></form>'
    )


@blueprint.post("/login")
def login() -> Response:
    session.clear()
    session["user"] = request.form["user"]
    return whoami()


@blueprint.get("/whoami")
def whoami() -> Response:
    return jsonify(user=session.get("user"), seen=type(session.get("seen")).__name__, pid=os.getpid())


@blueprint.get("/see")
def see() -> Response:
    session["seen"] = datetime.now(UTC)  # of no kind that JSON has
    return whoami()


@blueprint.get("/see-and-forget")
def see_and_forget() -> Response:
    """As a message is flashed and shown: what was empty is empty again."""
    see()
    del session["seen"]
    return whoami()


@blueprint.get("/logout")
def logout() -> Response:
    session.clear()
    return whoami()


@blueprint.get("/keep-a-set")
def keep_a_set() -> Response:
    session["numbers"] = {1, 2}
    return whoami()


@blueprint.get("/write-late")
def write_late() -> Response:
    """A change that ends after the session was ended elsewhere."""
    whoami()
    redis = current_app.extensions["redis"]
    redis.delete(*redis.keys("sess:*"))
    session["late"] = True
    return whoami()


@blueprint.get("/end-redis")
def end_redis() -> Response:
    """A change that ends after Redis did."""
    whoami()
    current_app.extensions["redis"].shutdown(nosave=True)
    session["late"] = True
    return whoami()


# Data that is written, and defects


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
