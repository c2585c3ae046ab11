"""A real PostgreSQL of a test run's own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.packages import find
from support.service import free_port, wait_for

PASSWORD = "canary-of-postgres"


def _demote() -> None:
    """PostgreSQL refuses to run as root: become the user that its package made."""
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


@contextlib.contextmanager
def postgres(**settings: str) -> Iterator[str]:
    """A server with these settings (`max_connections="40"`); its URL. It and its data are gone afterwards."""
    initdb = find("/usr/lib/postgresql/*/bin/initdb", "postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has 107 characters
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    password_file = folder / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    data, port = folder / "data", free_port()
    options = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(folder), **settings}
    command = [
        str(initdb),
        "-D",
        str(data),
        "-U",
        "app",
        "--auth=scram-sha-256",
        f"--pwfile={password_file}",
        "--no-sync",
    ]
    subprocess.run(command, preexec_fn=_demote, cwd=folder, check=True, capture_output=True)
    flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [str(initdb.with_name("postgres")), "-D", str(data), *flags],
            preexec_fn=_demote,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        ready = [str(initdb.with_name("pg_isready")), "-h", "127.0.0.1", "-p", str(port)]
        wait_for(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, "PostgreSQL answers")
        yield f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
        shutil.rmtree(folder)
