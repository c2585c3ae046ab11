"""A service whose migrations and commands a test tries on a real database."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from support.postgres import Postgres
from support.service import Service

HEAD = """from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{after}"


def upgrade() -> None:
{body}


def downgrade() -> None:
    pass  # a trial
"""


@dataclass
class Trial:
    """A service with migrations of the test's own, and the database that it has.

    Attributes:
        service: never started; it knows the environment.
        newest: the revision that the next migration follows.
    """

    service: Service
    server: Postgres
    url: str
    newest: str
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def write(self, revision: str, body: str, says: str = "A trial") -> None:
        text = f'"""{says}"""\n\n' + HEAD.format(revision=revision, after=self.newest, body=body)
        (self.service.folder / "migrations" / "versions" / f"{revision}.py").write_text(text)
        self.newest = revision

    def execute(self, revision: str, *statements: str) -> None:
        self.write(revision, "\n".join(f"    op.execute({statement!r})" for statement in statements))

    def set(self, module: str, name: str, value: float) -> None:
        """Give a constant of the service another value: tests do not wait for minutes."""
        path = self.service.folder / "app" / module
        old = next(line for line in path.read_text().splitlines() if line.startswith(f"{name} = "))
        path.write_text(path.read_text().replace(old, f"{name} = {value}"))

    def start(self, *command: str, **environ: str) -> subprocess.Popen[str]:
        """`flask db upgrade`, or another command, in the background."""
        process = subprocess.Popen(
            [str(self.service.venv / "bin" / "flask"), *(command or ("db", "upgrade"))],
            cwd=self.service.folder,
            env={**self.service.all_environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def run(self, *command: str, **environ: str) -> tuple[int, str]:
        process = self.start(*command, **environ)
        output = process.communicate(timeout=90)[0]
        return process.returncode, output

    def sql(self, statement: str) -> list[list[str]]:
        return self.server.sql(statement, self.url)

    def revision(self) -> str:
        return self.sql("SELECT version_num FROM alembic_version")[0][0]

    @contextlib.contextmanager
    def session(self, *statements: str) -> Iterator[None]:
        """Somebody else, who has done this, in a transaction that stays open."""
        command = [str(self.server.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdin is not None
        assert other.stdout is not None
        try:
            other.stdin.write("".join(f"{statement};\n" for statement in ("BEGIN", *statements, "SELECT 'it is done'")))
            other.stdin.flush()
            assert "it is done\n" in iter(other.stdout.readline, "")
            yield
        finally:
            other.stdin.close()
            other.wait(10)
            other.stdout.close()

    def is_waiting(self, what: str) -> bool:
        """Whether a session that migrates waits for a lock in a statement like this."""
        waiting = f"application_name LIKE '%-migrations' AND wait_event_type = 'Lock' AND query ILIKE '%{what}%'"
        return bool(self.sql(f"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND {waiting}"))
