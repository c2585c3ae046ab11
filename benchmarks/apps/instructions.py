"""Answer GET /hello a number of times, for whoever counts instructions: `instructions.py bare|service|defect COUNT`.

Run in a rendered service. Whichever is asked for, both applications are made and warmed up before, so that what two runs
differ in is the requests alone.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile

from app.observability import slots
from werkzeug.test import create_environ

slots.open_folder(tempfile.mkdtemp(dir=os.environ["PROMETHEUS_MULTIPROC_DIR"]))  # as under a server
slots.take_slot()

from app import create_app  # noqa: E402
from hello import app as bare  # noqa: E402

ENVIRON = create_environ("/hello")
service = create_app().wsgi_app


def defect(environ, start_response):
    """A seeded one: what a careless line may add to every request."""
    sorted(range(2000), key=str)
    return service(environ, start_response)


def call(application, count: int) -> None:
    for _ in range(count):
        body = application(dict(ENVIRON), lambda *_: None)
        b"".join(body)
        body.close()


applications = {"bare": bare.wsgi_app, "service": service, "defect": defect}
for application in applications.values():
    call(application, 20)
gc.collect()
gc.freeze()
call(applications[sys.argv[1]], int(sys.argv[2]))
