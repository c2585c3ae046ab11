"""The ASGI application, for a server of that kind: `asgi:app`.

Flask stays what it is: a request takes a thread of a pool, in which it may wait, and `async def` views run there too.
So an event loop serves no more of them at a time than there are threads (app/capacity.py); for a request that costs a
coroutine and not a thread, there is Quart (https://quart.palletsprojects.com).
"""

from __future__ import annotations

from app.server.bridge import Bridge
from app.settings import Settings
from wsgi import app as flask_app

settings: Settings = flask_app.extensions["settings"]
app = Bridge(flask_app.wsgi_app, settings.plan().threads)
