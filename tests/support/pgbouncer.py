"""A real PgBouncer with a service's own configuration."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.packages import find
from support.postgres import Postgres, demote
from support.service import free_port, wait_for

INI = "deploy/pgbouncer/pgbouncer.ini"


@contextlib.contextmanager
def pgbouncer(service: Path, server: Postgres, over: str = "", **settings: object) -> Iterator[Postgres]:
    """PgBouncer in front of `server`, with the file that is rendered in `service`; it is asked as `server` is.

    Args:
        service: the folder of a rendered service.
        server: the database.
        over: the file of the same folder that is laid over it, as in containers.
        settings: what is set otherwise than in that file, beside what depends on the machine.
    """
    program = find("/usr/sbin/pgbouncer", "pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="bouncer-", dir="/tmp"))
    ini = (service / INI).read_text()
    (line,) = re.findall(r"^; +(SELECT format\(.*)$", ini, re.M)
    (folder / "userlist.txt").write_text(server.sql(line)[0][0] + "\n")
    port = free_port()
    own = {"listen_port": port, "auth_file": folder / "userlist.txt", "unix_socket_dir": "", **settings}
    assert "port=5432" in ini
    last = "".join(f"{name} = {value}\n" for name, value in own.items())  # of a name given twice the last one counts
    (folder / "pgbouncer.ini").write_text(ini.replace("port=5432", f"port={server.port}") + last)
    if over:
        places = {"/etc/pgbouncer/": f"{folder}/", "/run/secrets/pgbouncer_users": f"{folder}/userlist.txt"}
        places |= {"host=postgres port=5432": f"host=127.0.0.1 port={server.port}"}
        for path in [service / "deploy/pgbouncer" / over, *service.glob("deploy/kubernetes/overlays/production/*.ini")]:
            text = path.read_text()
            for place, here in places.items():
                text = text.replace(place, here)
            (folder / path.name).write_text(text)
    for path in (folder, *folder.iterdir()):
        if os.geteuid() == 0:
            shutil.chown(path, "postgres")
    pooler = Postgres(port, folder, server.programs, {})
    with (folder / "log").open("ab") as log:
        pooler.process = subprocess.Popen(
            [str(program), str(folder / (over or "pgbouncer.ini"))],
            preexec_fn=demote,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        ready = [str(server.programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_for(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, "PgBouncer answers")
        yield pooler
    finally:
        pooler.process.terminate()
        pooler.process.wait(10)
        shutil.rmtree(folder)
