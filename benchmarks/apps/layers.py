"""GET /hello without a server: run in a rendered service, it prints the microseconds of a call, as JSON."""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import tempfile
import time

from app.observability import slots
from werkzeug.test import create_environ

slots.open_folder(tempfile.mkdtemp(dir=os.environ["PROMETHEUS_MULTIPROC_DIR"]))  # as under a server
slots.take_slot()

from app import create_app  # noqa: E402
from hello import app as bare  # noqa: E402

CALLS, ROUNDS = 500, 40
ENVIRON = create_environ("/hello")
whole = create_app().wsgi_app


def call(application) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        body = application(dict(ENVIRON), lambda *_: None)
        b"".join(body)
        body.close()
    return (time.perf_counter() - began) / CALLS * 1e6


def call_at(level: int) -> float:
    logging.getLogger("app.request").setLevel(level)
    return call(whole)


def call_with_key(key: str) -> float:
    bare.secret_key = key
    took = call(bare.wsgi_app)
    bare.secret_key = None
    return took


variants = {
    "bare Flask": lambda: call(bare.wsgi_app),
    "bare Flask with a SECRET_KEY": lambda: call_with_key("any"),
    "the service without the layer of request_log.py": lambda: call(whole.inner),
    "the service at LOG_LEVEL=WARNING": lambda: call_at(logging.WARNING),
    "the service": lambda: call_at(logging.INFO),
}
rounds = [[variant() for variant in variants.values()] for _ in range(ROUNDS)]
medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
print(json.dumps(dict(zip(variants, medians, strict=True))), file=sys.stderr)
