"""The service's pages about heavy reads and backups: what they tell to run is run, as it stands there."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from boot.conftest import prepare
from support.postgres import Postgres
from support.service import Service
from support.template import SERVICE

pytestmark = pytest.mark.default_class


class Block(NamedTuple):
    """A fenced block: its language, and the text in it. One that begins with a path in a comment is that file."""

    language: str
    text: str

    @property
    def path(self) -> str:
        found = re.match(r"(?:#|--) (\w+/\S+)\n", self.text)
        return found[1] if found else ""


def blocks(page: str) -> list[Block]:
    text = (SERVICE / "docs" / page).read_text(encoding="utf-8")
    found = [Block(*pair) for pair in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)]
    assert found, "there is something to run"
    assert {block.language for block in found} <= {"console", "sql", "python"}, "and nothing else is fenced"
    return found


class Reader:
    """Somebody who does what a page says, in the folder of a service."""

    def __init__(self, service: Service, server: Postgres, url: str) -> None:
        self.service, self.server, self.url = service, server, url
        self.environ = {
            **service.all_environ,
            "PATH": f"{server.programs}:{service.all_environ['PATH']}",
            "DATABASE_URL": url,
        }
        self.exported = ""

    def follow(self, page: str) -> None:
        for block in blocks(page):
            if block.path:
                path = self.service.folder / block.path
                path.parent.mkdir(exist_ok=True)
                path.write_text(block.text)
            elif block.language == "sql":
                self.server.sql(block.text, self.url)
            else:
                assert block.language == "console", f"a file without its path: {block.text}"
                for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.M):
                    done = self.run(command)
                    assert done.returncode == 0, done.stdout + done.stderr
                    assert fnmatch.fnmatchcase(done.stdout, shown.replace("...", "*")), done.stdout + done.stderr

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command, by a shell that knows what earlier ones exported."""
        if command.startswith("export "):
            self.exported += f"{command}\n"
        return subprocess.run(
            ["sh", "-c", self.exported + command],
            cwd=self.service.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def copy(folder: Path, venv: Path, tmp_path: Path) -> Path:
    """The service, to be changed."""
    copied = tmp_path / "copy" / "service"
    shutil.copytree(folder, copied)
    shutil.copy(folder.parent / "app.db", copied.parent)
    (copied / ".venv").symlink_to(venv)
    return copied


@contextmanager
def following(copy: Path, venv: Path, server: Postgres, url: str, page: str) -> Iterator[Reader]:
    """A reader who has done everything, and the service as the page made it, running."""
    service = prepare(copy, venv, copy.parent, {"DATABASE_URL": url, "LOG_LEVEL": "WARNING"})
    reader = Reader(service, server, url)
    reader.follow(page)
    with service:
        yield reader


def test_heavy_reads(copy: Path, venv: Path, migrated: str, postgres_server: Postgres) -> None:
    def create(name: str, quantity: int) -> None:
        assert service.request("POST", "/api/items", {"name": name, "quantity": quantity}).status == 201

    with following(copy, venv, postgres_server, migrated, "heavy-reads.md") as reader:
        service, check = reader.service, "psql $DATABASE_URL -XqAtf scripts/check_counts.sql"
        for name, quantity in (("Bolt", 3), ("Bolt", 4), ("Nut", 5)):
            create(name, quantity)
        before = service.get("/api/totals").json
        assert before["totals"] == []
        assert reader.run("psql $DATABASE_URL -Xqf scripts/refresh_totals.sql").returncode == 0
        after = service.get("/api/totals").json
        bolts, nuts = {"name": "Bolt", "items": 2, "quantity": 7}, {"name": "Nut", "items": 1, "quantity": 5}
        assert after["totals"] == [bolts, nuts]
        assert after["as_of"] > before["as_of"]

        where = service.get("/api/items").json["items"][0]["id"]
        assert service.request("PATCH", f"/api/items/{where}", {"name": "Nut"}).status == 200
        assert service.request("DELETE", f"/api/items/{where}").status == 204
        counts = "SELECT name, items, quantity FROM item_counts ORDER BY name"
        assert postgres_server.sql(counts, migrated) == [["Bolt", "1", "4"], ["Nut", "1", "5"]]
        assert reader.run(check).stdout == "0\n"
        postgres_server.sql("ALTER TABLE items DISABLE TRIGGER count_items", migrated)
        create("Bolt", 1)
        assert reader.run(check).stdout == "1\n", "the check can fail"


@pytest.mark.with_all
@pytest.mark.parametrize(("how", "read"), [("CONCURRENTLY", True), ("", False)])
def test_nobody_waits_for_a_refresh_that_is_concurrent(
    copy: Path, venv: Path, migrated: str, postgres_server: Postgres, how: str, read: bool
) -> None:
    """And everybody does for the other one: asked in the middle of the refresh, a reader gives up at once."""
    with following(copy, venv, postgres_server, migrated, "heavy-reads.md") as reader:
        asked = f"\\! psql -XqAt '{migrated}' -c \"SET lock_timeout = '300ms'; SELECT count(*) FROM item_totals\""
        script = f"BEGIN;\nREFRESH MATERIALIZED VIEW {how} item_totals;\n{asked}\nCOMMIT;\n"
        (copy / "middle.sql").write_text(script)
        done = reader.run("psql $DATABASE_URL -XqAt -v ON_ERROR_STOP=1 -f middle.sql")
        assert (done.returncode, done.stdout == "0\n", "lock timeout" in done.stderr) == (0, read, not read)


DEFECTS = {
    "a row that is lost": "DELETE FROM items WHERE name = 'Nut'",
    "a value that is another": "UPDATE items SET quantity = 4 WHERE name = 'Nut'",
    "a table that is lost": "DROP TABLE idempotency_keys",
    "another release's schema": "UPDATE alembic_version SET version_num = '0000'",
}


def test_backup(copy: Path, venv: Path, migrated: str, postgres_server: Postgres) -> None:
    service = prepare(copy, venv, copy.parent, {"DATABASE_URL": migrated, "LOG_LEVEL": "WARNING"})
    reader = Reader(service, postgres_server, migrated)
    with service:
        for name in ("Bolt", "Nut"):
            assert service.request("POST", "/api/items", {"name": name}, {"Idempotency-Key": name}).status == 201
    reader.follow("backup.md")


@pytest.mark.with_all
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_restore_with_a_defect_is_noticed(
    copy: Path, venv: Path, migrated: str, postgres_server: Postgres, defect: str
) -> None:
    service = prepare(copy, venv, copy.parent, {"DATABASE_URL": migrated})
    reader = Reader(service, postgres_server, migrated)
    row = "INSERT INTO items VALUES (DEFAULT, 'Nut', 3, 1, now(), now())"
    postgres_server.sql(row, migrated)
    assert reader.run(".venv/bin/python -m scripts.backup take backup.dump").returncode == 0
    postgres_server.sql(row, migrated)  # what came after the backup is no defect of the restore
    restored = postgres_server.create()
    postgres_server.run(
        "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={restored}", str(copy / "backup.dump")
    )
    reader.environ["DATABASE_URL"] = restored
    check = ".venv/bin/python -m scripts.backup check backup.dump"
    assert "Everything is as it was." in reader.run(check).stdout
    postgres_server.sql(DEFECTS[defect], restored)
    done = reader.run(check)
    assert done.returncode == 1
    assert "WRONG public." in done.stdout


def test_a_database_that_is_not_there_is_said_in_a_line_without_its_password(
    copy: Path, venv: Path, postgres_server: Postgres
) -> None:
    service = prepare(copy, venv, copy.parent, {})
    reader = Reader(service, postgres_server, postgres_server.url_of("nowhere"))
    for command in ("take backup.dump", "check no.dump"):
        done = reader.run(f".venv/bin/python -m scripts.backup {command}")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "canary" not in done.stderr
        assert not list(copy.glob("*.dump"))
