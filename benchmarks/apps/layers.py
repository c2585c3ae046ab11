"""GET /hello without a server: run in a rendered service, it prints the CPU microseconds of a call, as JSON.

Time of the whole process counts, so that of the threads which send traces and errors is in it.
"""

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

from hello import app as bare  # noqa: E402

CALLS, ROUNDS = 500, 60
ENVIRON = create_environ("/hello")
if "STOCK" in os.environ:
    from stock_app import app as service
else:
    from app import create_app

    service = create_app()
for exporter in service.extensions.get("exporters", ()):
    exporter.start()


def call(application) -> float:
    began = time.process_time()
    for _ in range(CALLS):
        body = application(dict(ENVIRON), lambda *_: None)
        b"".join(body)
        body.close()
    return (time.process_time() - began) / CALLS * 1e6


def call_at(level: int) -> float:
    logging.getLogger("app.request").setLevel(level)
    return call(service.wsgi_app)


variants = {"bare": lambda: call(bare.wsgi_app), "whole": lambda: call_at(logging.INFO)}
if service.extensions.get("exporters") == []:
    variants["without a log line"] = lambda: call_at(logging.WARNING)
    variants["without the layer of request_log.py"] = lambda: call(service.wsgi_app.inner)
rounds = [[variant() for variant in variants.values()] for _ in range(ROUNDS)]
medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
print(json.dumps(dict(zip(variants, medians, strict=True))), file=sys.stderr)
