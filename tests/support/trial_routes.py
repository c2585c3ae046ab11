"""A feature for trials: copied into a rendered service as `app/trial/routes.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Iterator

from flask import Blueprint, Response, abort, g, jsonify, request

blueprint = Blueprint("trial", __name__, url_prefix="/trial")


@blueprint.get("/sleep/<float:seconds>")
def sleep(seconds: float) -> Response:
    time.sleep(seconds)
    return jsonify(pid=os.getpid())


@blueprint.get("/sleep-async/<float:seconds>")
async def sleep_async(seconds: float) -> Response:
    await asyncio.sleep(seconds)
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
