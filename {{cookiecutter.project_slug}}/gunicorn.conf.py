"""Gunicorn's configuration: `gunicorn` alone, in this folder, starts the service.

Numbers come from app/capacity.py, values from the environment (app/settings.py). To try another one for once:
GUNICORN_CMD_ARGS="--timeout 60" gunicorn
"""

from __future__ import annotations

from app.settings import ANSWERS, SettingsError, load_settings

try:
    settings = load_settings()
except SettingsError as error:
    raise SystemExit(str(error)) from None
if settings.worker_class == "gevent":
    # Before anything else is imported: a lock that is made earlier blocks all greenlets, not the one that waits.
    try:
        from gevent import monkey
    except ImportError:
        raise SystemExit("GUNICORN_WORKER_CLASS: gevent is not installed here; the Dockerfile says why.") from None

    monkey.patch_all()

import os

from app import capacity
from app.observability import logs
from app.server import hooks
from app.server.hooks import child_exit, on_starting, post_fork, when_ready, worker_abort, worker_exit, worker_int

__all__ = ["child_exit", "on_starting", "post_fork", "when_ready", "worker_abort", "worker_exit", "worker_int"]

logs.configure(settings.log_level)
hooks.prepare(settings)
plan = settings.plan()

wsgi_app = "asgi:app" if settings.worker_class == "asgi" else "wsgi:app"
proc_name = ANSWERS["slug"]
# One load of the code for all workers: they share its memory, and a worker is there at once. A reload (HUP)
# therefore restarts workers but not code; new code is a new server.
preload_app = True

bind = list(settings.bind) or [f"127.0.0.1:{settings.port}"]
backlog = 2048

worker_class = f"app.server.workers.{settings.worker_class}.Worker"
workers = plan.workers
threads = plan.threads
max_requests = capacity.MAX_REQUESTS
max_requests_jitter = capacity.MAX_REQUESTS // 10  # not all at the same time

timeout = int(capacity.SECONDS["request"])
graceful_timeout = int(capacity.SECONDS["graceful"])
keepalive = int(capacity.SECONDS["keepalive"])

# Heartbeat files: on a disk that is slow for a moment, workers would be taken for dead.
MEMORY = "/dev/shm"  # noqa: S108
worker_tmp_dir = MEMORY if os.access(MEMORY, os.W_OK) else None
# A control socket in the home folder is shared by all services of a user, and an error where there is none.
control_socket_disable = True

# Who the client is and which scheme it used is ProxyFix's to say (TRUSTED_PROXY_HOPS), so nothing is believed here.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# The request's line is the service's own (app/observability/request_log.py); Gunicorn's lines join it.
accesslog = None
logger_class = "app.server.logger.Logger"
loglevel = settings.server_log_level.lower()
