"""The process that answers Prometheus: `python -m app.observability.serve ADDRESS PORT`.

It is a process of its own, so that a saturated server is still seen and its public port has no `/metrics`. It reads
the folder in PROMETHEUS_MULTIPROC_DIR and lives as long as its standard input is open: whatever starts the server
holds the other end, so that this ends, and removes the folder, however the server ends.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from app.observability import slots
from app.settings import Settings

RETRY = 2.0  # seconds between attempts to have a port that is taken
log = logging.getLogger("app.metrics")


class Listener:
    """The process, seen from the server that keeps it running."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def keep(self) -> None:
        """Start the process if it does not run; call it every second or so."""
        if self.process is None or self.process.poll() is not None:
            if self.process is not None:
                log.warning("The process that serves metrics has ended; it is started again.")
            self.let_go()
            address = [self.settings.metrics_bind, str(self.settings.metrics_port)]
            level = self.settings.log_level
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.observability.serve", *address, level],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
            )

    def let_go(self) -> None:
        """Close this process's end of the pipe: a worker's copy would keep the listener alive without a master."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()


def main(address: str, port: int, level: str) -> None:
    """Answer until standard input ends, then remove the folder."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    from app.observability import logs

    logs.configure(level)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the server says when to end
        signal.signal(number, signal.SIG_IGN)
    folder = Path(os.environ[slots.VARIABLE])
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    serving = warned = False
    while not select.select([sys.stdin], [], [], None if serving else RETRY * warned)[0]:
        try:
            start_http_server(port, address, registry)
            serving = True
        except OSError as error:
            if not warned:
                reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
                log.warning("Metrics are not served: port %s %s; set METRICS_PORT to another.", port, reason)
            warned = True
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
