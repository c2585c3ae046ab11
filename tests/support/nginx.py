"""Debian's nginx as a process of the test's own: unprivileged, in one folder, and gone when the test is over."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.service import wait_for

# Debian asks policy-rc.d whether it may start the service of what it installs. A mirror may fail for a moment.
INSTALL = r"""
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { trap "rm $policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
export DEBIAN_FRONTEND=noninteractive
for attempt in 1 2 3; do
    apt-get update -q && apt-get install -y -q --no-install-recommends nginx && break
done
"""
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


def ensure_nginx() -> str:
    """Where nginx is. If it is missing and we are root it is installed, and its service not started."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    if not shutil.which("nginx", path=path) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(INSTALL, shell=True, check=False)
    found = shutil.which("nginx", path=path)
    if found is None:
        pytest.fail("nginx is missing and could not be installed: sudo apt-get install nginx", pytrace=False)
    return found


@contextlib.contextmanager
def nginx(folder: Path, port: int, http: str) -> Iterator[subprocess.Popen[bytes]]:
    """An nginx with `http` as the content of its `http` block, once it listens on `port`. Its logs are in `folder`."""
    (folder / "temp").mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(FRAME % http)
    # The workers of a root's nginx become another user, who may not enter the folders of tests.
    directives = "daemon off; pid nginx.pid;" + (" user root;" if os.geteuid() == 0 else "")
    command = [ensure_nginx(), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", "-g", directives]
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
