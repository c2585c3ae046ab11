"""A feature for trials: copied into a rendered service as `app/trial/routes.py`."""

from __future__ import annotations

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


@blueprint.post("/echo")
def echo() -> Response:
    return Response(request.get_data())


@blueprint.post("/ignore")
def ignore() -> Response:
    return jsonify(pid=os.getpid())


@blueprint.get("/redis")
def use_redis() -> Response:
    import redis

    with redis.Redis.from_url(os.environ["TRIAL_REDIS_URL"]) as client:
        return jsonify(count=client.incr("count"))


@blueprint.post("/lose/<word>")
def lose(word: str) -> Response:
    g.user_id = "user-7"
    local = request.get_data(as_text=True)
    raise LookupError(f"lost {word} of {len(local)}")


@blueprint.get("/trace")
def trace() -> Response:
    time.sleep(0.01)
    raise LookupError("in a thread that had other requests before")
