"""A real PostgreSQL of a test run's own."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.packages import find
from support.service import free_port, wait_for

PASSWORD = "canary-of-postgres"


def demote() -> None:
    """PostgreSQL refuses to run as root: become the user that its package made."""
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


@dataclass
class Postgres:
    """A running server.

    Attributes:
        url: of its database `postgres`, as its superuser `app`.
        port: on 127.0.0.1.
        folder: of this start; `data` in it is the server's.
        programs: the folder of `psql`, `pg_dump` and the like, of the server's version.
        settings: what it is started with.
        process: the server; a test may freeze or kill it, and start it again.
    """

    port: int
    folder: Path
    programs: Path
    settings: Mapping[str, str]
    process: subprocess.Popen[bytes] = field(init=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://app:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        flags = [flag for name, value in self.settings.items() for flag in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *flags],
                preexec_fn=demote,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        ready = [str(self.programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        wait_for(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, "PostgreSQL answers")

    def stop(self) -> None:
        """End it at once, and every connection with it; one that was killed is left as it is."""
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def signal(self, number: signal.Signals) -> None:
        """Freeze (SIGSTOP) or wake (SIGCONT) all its processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def run(self, program: str, *arguments: str) -> str:
        """What one of `programs` prints."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sql(self, statement: str, url: str = "") -> list[list[str]]:
        """The rows that a statement gives, each value as text."""
        output = self.run("psql", "-XqAt", "-F\t", "-v", "ON_ERROR_STOP=1", "-d", url or self.url, "-c", statement)
        return [line.split("\t") for line in output.splitlines()]

    def create(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`, to which nobody is connected."""
        name = f"{template}_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url_of(name)


@contextlib.contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A server with these settings (`max_connections="40"`). It and its data are gone afterwards."""
    initdb = find("/usr/lib/postgresql/*/bin/initdb", "postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has 107 characters
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    password_file = folder / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    command = [str(initdb), "-D", str(folder / "data"), "-U", "app", "--auth=scram-sha-256"]
    command += [f"--pwfile={password_file}", "--no-sync"]
    subprocess.run(command, preexec_fn=demote, cwd=folder, check=True, capture_output=True)
    with serve(folder, **settings) as server:
        yield server
    shutil.rmtree(folder)


@contextlib.contextmanager
def serve(folder: Path, **settings: str) -> Iterator[Postgres]:
    """A server on the data in `folder`, on a port of its own."""
    programs = find("/usr/lib/postgresql/*/bin/initdb", "postgresql").parent
    port = free_port()
    options = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(folder), **settings}
    server = Postgres(port, folder, programs, options)
    try:
        server.start()
        yield server
    finally:
        if server.process.poll() is None:
            server.signal(signal.SIGCONT)
        server.stop()


@contextlib.contextmanager
def replica(primary: Postgres) -> Iterator[Postgres]:
    """A server that follows `primary` by streaming replication, and answers what only reads."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    command = [str(primary.programs / "pg_basebackup"), "-D", str(folder / "data"), "-R", "-c", "fast"]
    copied = subprocess.run(
        [*command, "-d", primary.url_of("")], preexec_fn=demote, cwd=folder, check=False, capture_output=True
    )
    assert copied.returncode == 0, copied.stderr
    with serve(folder, max_connections=primary.settings.get("max_connections", "100")) as server:
        yield server
    shutil.rmtree(folder)
