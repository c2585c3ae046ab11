"""Debian's nginx as a process of the test's own: unprivileged, in one folder, and gone when the test is over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.packages import find
from support.service import wait_for

# Around what the caller configures; the folders are below /var otherwise, where only root may write.
FRAME = """
worker_processes 1;  # every worker keeps upstream connections of its own
events { worker_connections 1024; }
http {
access_log access.log;
client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
%s
}
"""


@contextlib.contextmanager
def nginx(folder: Path, port: int, http: str) -> Iterator[subprocess.Popen[bytes]]:
    """An nginx with `http` as the content of its `http` block, once it listens on `port`. Its logs are in `folder`."""
    (folder / "temp").mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(FRAME % http)
    # The workers of a root's nginx become another user, who may not enter the folders of tests.
    directives = "daemon off; pid nginx.pid;" + (" user root;" if os.geteuid() == 0 else "")
    command = [str(find("nginx", "nginx")), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", "-g", directives]
    process = subprocess.Popen(command, start_new_session=True)

    def listens() -> bool:
        assert process.poll() is None, f"nginx ended: {(folder / 'error.log').read_text()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    try:
        wait_for(listens, "nginx listens")
        yield process
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.terminate()
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers outlive a master that was killed
        process.wait()
