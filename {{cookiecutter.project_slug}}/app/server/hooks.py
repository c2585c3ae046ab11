"""What Gunicorn calls as it starts, forks and stops; `gunicorn.conf.py` imports these by their names.

This module is imported once, while the configuration is run again at each reload, so what must last is kept here.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any

from app.capacity import SECONDS
from app.observability import slots
from app.observability.serve import Listener
from app.settings import ANSWERS, Settings, load_settings

SO_BINDTOIFINDEX = 62  # asm-generic/socket.h; Python's socket module does not name it
NO_INTERFACE = 2**31 - 1
STOPS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT)
GARBAGE = 10_000  # new objects before the collector looks at them; Python's 700 took 2 µs more of a small request
_listener: Listener | None = None


def prepare(settings: Settings) -> None:
    """Make the folder of metrics, before anything imports a metric."""
    global _listener
    if _listener is None:
        try:
            slots.open_folder(settings.metrics_dir)
        except OSError as error:
            sys.exit(f"PROMETHEUS_MULTIPROC_DIR: no folder can be made in {error.filename}: {error.strerror}.")
        _listener = Listener(settings)


def on_starting(server: Any) -> None:
    """Refuse a port that is taken in one line; Gunicorn would try five times, for five seconds."""
    if server.master_pid or "LISTEN_FDS" in os.environ:
        return  # the old master (USR2) or systemd hands over its sockets
    for address in server.cfg.address:
        if isinstance(address, tuple):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            with socket.socket(family) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind(address)
                except OSError as error:
                    host, port = address
                    another = port + 1 if port < 65535 else port - 1
                    mend = f"GUNICORN_BIND={host}:{another}" if os.environ.get("GUNICORN_BIND") else f"PORT={another}"
                    sys.exit(f"Cannot serve on {host}:{port}: {error.strerror}. Choose another address: {mend}")


def when_ready(server: Any) -> None:
    """Say what was started, let the kernel hold back idle connections, and keep the metrics listener.

    The application is loaded by now and no worker is forked yet.
    """
    announce(server)
    for listener in server.LISTENERS:
        if hasattr(socket, "TCP_DEFER_ACCEPT") and listener.FAMILY != socket.AF_UNIX:
            # A thread would wait for each connection that says nothing; 44 of them once held up a probe for 50 s.
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(SECONDS["first_bytes"]))

    # Out of the collector's sight, or a worker's first full collection copies what it shares with the master: 15 MB.
    gc.freeze()
    gc.set_threshold(GARBAGE)
    # The application has read it. Gunicorn would want every path to begin with it, also the probes' and those that a
    # proxy stripped, and answers 500 to the others.
    os.environ.pop("SCRIPT_NAME", None)
    if _listener is not None:
        _listener.keep()
    # Gunicorn has no hooks for these three.
    server.stop = partial(stop, server, server.stop)
    server.spawn_worker = partial(spawn_worker, server.spawn_worker)
    server.manage_workers = partial(manage_workers, server.manage_workers)


def announce(server: Any) -> None:
    """Log what a person on call wants to read first: what runs, where, how much of it, and why."""
    settings = load_settings()
    plan = settings.plan()
    server.log.info(
        "%s %s (template %s), %s, at %s",
        ANSWERS["slug"],
        settings.app_version,
        ANSWERS["template_version"],
        settings.app_env,
        " and ".join(map(str, server.LISTENERS)),
    )
    server.log.info(
        "gunicorn: %s %s workers of %s threads, a pool of %s connections each, about %s MB; %s",
        server.cfg.workers,
        settings.worker_class,
        server.cfg.threads,
        plan.pool_size,
        plan.memory_mb,
        plan.reason,
    )
    for exporter in application().extensions["exporters"]:
        server.log.info("sends %s", exporter)
    if settings.ratelimit_enabled and not settings.redis_url:
        server.log.info("limits are counted by each worker alone: there is no REDIS_URL")


def application() -> Any:
    """The Flask application, which the master has loaded by the time that any of these run."""
    import wsgi

    return wsgi.app


def spawn_worker(spawn: Callable[[], Any]) -> Any:
    """Hold signals back until the new worker can take them.

    It is born with the master's handlers, which take a signal and do nothing with it there: a worker forked just
    before a stop would go on until it is killed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        return spawn()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def manage_workers(manage: Callable[[], None]) -> None:
    """Gunicorn's own, which it calls once a second; then the listener, should it have died."""
    manage()
    if _listener is not None:
        _listener.keep()


def stop(server: Any, stop_workers: Callable[[bool], None], graceful: bool = True) -> None:
    """Let the workers drain, then shut the door to new connections before the last listener is closed.

    A listener that closes resets what is half connected at that moment: a request every few stops under load, and many
    where a quota leaves no moment in which nothing waits. Behind the door new connections are refused, while those half
    made come through. A socket that lives on, with systemd or a new master (USR2), stays open.
    """
    last = not server.systemd and server.reexec_pid == server.master_pid == 0
    if graceful and last:
        server.kill_workers(signal.SIGTERM)
        time.sleep(SECONDS["drain"])
        for listener in server.LISTENERS:
            shut_door(listener.sock)
    stop_workers(graceful)


def shut_door(listener: socket.socket) -> None:
    """Have Linux lead no new connection to a TCP listener, by binding it to a network interface that does not exist.

    Who connects from now on is refused. Connections half made still come through: they were led here already. It takes
    no privilege (Linux 5.7), as a socket filter does by now.
    """
    if sys.platform == "linux" and listener.family != socket.AF_UNIX:
        with suppress(OSError):  # a sandbox that cannot do so stops as others do
            listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def post_fork(server: Any, worker: Any) -> None:
    """Leave to the master what is the master's."""
    from app.database import forget_connections
    from app.observability.metrics import THREADS

    if _listener is not None:
        _listener.let_go()
    forget_connections(application())
    slots.take_slot()
    THREADS.set(worker.cfg.threads)
    for exporter in application().extensions["exporters"]:
        exporter.start()


def child_exit(server: Any, worker: Any) -> None:
    slots.sweep()


def worker_exit(server: Any, worker: Any) -> None:
    """Send what is still held back, to all at the same time, and for as long as each of them may take."""
    exporters = sorted(application().extensions["exporters"], key=attrgetter("patience"))
    flushes = [threading.Thread(target=exporter.flush, daemon=True) for exporter in exporters]
    began = time.monotonic()
    for flush in flushes:
        flush.start()
    for flush, exporter in zip(flushes, exporters, strict=True):
        flush.join(max(0.0, began + exporter.patience - time.monotonic()))


def worker_int(worker: Any) -> None:
    worker.log.info("Worker %s was told to stop at once", worker.pid)


def worker_abort(worker: Any) -> None:
    """The master gave up on this worker; say where it hung."""
    worker.log.error(
        "Worker %s did not answer for %s s:\n%s", worker.pid, worker.cfg.timeout, "\n".join(worker.stacks())
    )
