"""Migrations cannot hurt: one run at a time, nobody waits for it long, and whatever ends it, the next one goes on."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.packages import find
from support.postgres import PASSWORD, demote
from support.service import free_port, wait_for
from support.trial import Trial

pytestmark = pytest.mark.default_class
INDEX = """    with op.get_context().autocommit_block():
        op.create_index("ix_items_name", "items", ["name"], unique=True, postgresql_concurrently=True)"""

INSERT = "INSERT INTO items (name, quantity, version, created_at, updated_at) VALUES ('canary', 1, 1, now(), now())"


def lines(output: str) -> list[dict[str, Any]]:
    """The log; anything else, a traceback say, fails the test."""
    return [json.loads(line) for line in output.splitlines()]


def error(output: str) -> str:
    """The one line that says what is wrong."""
    (found,) = [line["message"] for line in lines(output) if line["level"] == "ERROR"]
    assert "canary" not in output
    return str(found)


def lock_number(trial: Trial) -> int:
    source = (trial.service.folder / "app" / "database" / "lock.py").read_text()
    return int(re.findall(r"^LOCK = (\w+)", source, re.M)[0], 0)


@contextlib.contextmanager
def pooler(trial: Trial) -> Iterator[str]:
    """The URL of a PgBouncer in front of the trial's database, which gives each transaction another connection."""
    folder, port = Path(tempfile.mkdtemp(prefix="pooler-", dir="/tmp")), free_port()
    name = trial.url.rpartition("/")[2]
    behind = f"host=127.0.0.1 port={trial.server.port} dbname={name} user=app password={PASSWORD}"
    settings = {"listen_addr": "127.0.0.1", "listen_port": port, "auth_type": "any", "pool_mode": "transaction"}
    lines = [f"{key} = {value}" for key, value in settings.items()]
    (folder / "ini").write_text("\n".join(["[databases]", f"{name} = {behind}", "[pgbouncer]", *lines, ""]))
    folder.chmod(0o755)
    program = find("pgbouncer", "pgbouncer")
    process = subprocess.Popen([str(program), "-q", str(folder / "ini")], preexec_fn=demote, cwd=folder)
    try:
        url = f"postgresql://app@127.0.0.1:{port}/{name}"
        wait_for(lambda: answers(port), "PgBouncer answers")
        yield url
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# It goes on when all ten are there: on a busy machine the last one starts when the first one has long ended.
WHEN_ALL_ARE_THERE = """
DO $$ BEGIN
FOR turn IN 1..600 LOOP
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE '%-migrations') >= TOGETHER;
    PERFORM pg_sleep(0.1);
END LOOP; END $$
"""


@pytest.mark.parametrize("together", [4, pytest.param(10, marks=pytest.mark.with_all)])
def test_some_at_once_make_one_migration_of_each(trial: Trial, database: str, together: int) -> None:
    """On an empty database, where there is no table of revisions to meet at."""
    trial.execute(
        "t1",
        "CREATE TABLE log (n integer)",
        WHEN_ALL_ARE_THERE.replace("TOGETHER", f"{together}"),
        "INSERT INTO log VALUES (1)",
    )
    runs = [trial.start(DATABASE_URL=database) for _ in range(together)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * together, outputs
    assert trial.server.sql("SELECT n FROM log", database) == [["1"]]
    done = [line for output in outputs for line in lines(output) if line["message"].endswith("-> t1, A trial: done")]
    assert len(done) == 1
    assert done[0]["seconds"] > 0


def test_killed_in_the_middle_it_leaves_nothing_and_runs_again(trial: Trial) -> None:
    trial.execute("t1", "CREATE TABLE first (n integer)")
    trial.execute("t2", "CREATE TABLE log (n integer)", "SELECT pg_sleep(60)")
    killed = trial.start()
    sleeping = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    wait_for(lambda: trial.sql(sleeping), "the migration is under way")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert trial.revision() == "t1", "what was done stays done"
    trial.newest = "t1"
    trial.execute("t2", "CREATE TABLE log (n integer)")
    code, output = trial.run()
    assert code == 0, output
    assert trial.sql(sleeping) == [], "PostgreSQL has missed the one that was killed"
    assert trial.sql("SELECT count(*) FROM log") == [["0"]]
    assert trial.revision() == "t2"


def test_a_schema_at_its_head_is_left_alone_whatever_others_do(trial: Trial) -> None:
    everything = "LOCK TABLE items IN ACCESS EXCLUSIVE MODE"
    with trial.session(f"SELECT pg_advisory_lock({lock_number(trial)})", everything):
        code, output = trial.run()
        assert code == 0, output
    assert [line for line in lines(output) if line["logger"].startswith("app.")] == []


def test_a_run_that_waits_in_vain_says_for_whom(trial: Trial) -> None:
    trial.set("database/lock.py", "PATIENCE", 0.5)
    trial.execute("t1", "SELECT 1")
    with trial.session(f"SELECT pg_advisory_lock({lock_number(trial)})"):
        holder = trial.sql("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")[0][0]
        code, output = trial.run()
    assert code == 1
    assert f"Process {holder} of PostgreSQL" in error(output)
    assert trial.run()[0] == 0


def test_a_table_in_use_is_tried_again_and_nobody_queues_for_long(trial: Trial) -> None:
    """Somebody reads in a transaction that does not end; whoever comes after the migration waits no longer than that
    waits."""
    trial.set("database/migrate.py", "LOCK_TIMEOUT", 0.5)
    trial.execute("t1", "ALTER TABLE items ADD COLUMN x integer")
    with trial.session("SELECT * FROM items"):
        run = trial.start()
        wait_for(lambda: trial.is_waiting("ALTER TABLE"), "the migration waits")
        began = time.monotonic()
        trial.sql("SELECT * FROM items")
        assert time.monotonic() - began < 5, "it gave up, and let this one through"
        wait_for(lambda: trial.is_waiting("ALTER TABLE"), "the migration waits again")
    output = run.communicate(timeout=60)[0]
    assert run.returncode == 0, output
    tries = [line["message"] for line in lines(output) if line["level"] == "WARNING"]
    assert tries
    assert all("no lock in time, try" in message for message in tries)
    assert trial.revision() == "t1"


def test_a_table_that_is_never_free_is_given_up(trial: Trial) -> None:
    for name, value in (("LOCK_TIMEOUT", 0.1), ("ATTEMPTS", 2), ("LONGEST_PAUSE", 0.1)):
        trial.set("database/migrate.py", name, value)
    trial.execute("t1", "ALTER TABLE items ADD COLUMN x integer")
    with trial.session("LOCK TABLE items IN ACCESS EXCLUSIVE MODE"):
        code, output = trial.run()
    assert code == 1
    assert "-> t1, A trial failed: canceling statement due to lock timeout" in error(output)
    assert "at each of 2 tries" in error(output)


def test_a_statement_that_fails_is_named_and_what_came_before_is_done(trial: Trial) -> None:
    trial.execute("t1", "CREATE TABLE first (name text UNIQUE)", "INSERT INTO first VALUES ('canary of a user')")
    trial.execute("t2", "INSERT INTO first VALUES ('canary of a user')")
    code, output = trial.run()
    assert code == 1
    assert 't1 -> t2, A trial failed: duplicate key value violates unique constraint "first_name_key"' in error(output)
    assert "again: flask db upgrade" in error(output)
    assert trial.revision() == "t1"


def test_an_index_is_built_while_transactions_are_open_and_others_wait_for_their_turn(trial: Trial) -> None:
    """It waits for longer than a lock may be waited for, and is not given up."""
    trial.set("database/migrate.py", "LOCK_TIMEOUT", 0.2)
    trial.write("t1", INDEX, "Find items by name")
    with trial.session(INSERT):
        runs = [trial.start() for _ in range(3)]
        wait_for(lambda: trial.is_waiting("CREATE UNIQUE INDEX"), "the index waits")
        waited = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND now() - query_start > interval '1 s'"
        )
        wait_for(lambda: trial.sql(waited), "it goes on waiting")
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0] * 3, outputs
    assert trial.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_items_name'::regclass") == [["t"]]


def test_an_invalid_index_is_found_and_named_until_it_is_gone(trial: Trial) -> None:
    trial.write("t1", INDEX, "Find items by name")
    trial.sql(f"{INSERT}; {INSERT}")
    for _ in range(2):  # the run that leaves it, and the next one
        code, output = trial.run()
        assert code == 1
        assert "DROP INDEX CONCURRENTLY ix_items_name; and then again: flask db upgrade" in error(output)
    checks = json.loads(trial.run("preflight", "--json")[1])["checks"]
    (told,) = [check for check in checks if check["check"] == "migrations"]
    assert not told["ok"]
    assert told["mend"] == "DROP INDEX CONCURRENTLY ix_items_name;"
    trial.sql("DELETE FROM items")
    trial.sql("DROP INDEX CONCURRENTLY ix_items_name")
    code, output = trial.run()
    assert code == 0, output


def test_an_index_that_is_being_built_is_not_taken_for_an_invalid_one(trial: Trial) -> None:
    trial.execute("t1", "CREATE TABLE other (n integer)")
    with trial.session(INSERT):
        build = ["-X", "-d", trial.url, "-c", "CREATE INDEX CONCURRENTLY ix_slow ON items (name)"]
        with subprocess.Popen([str(trial.server.programs / "psql"), *build], stdout=subprocess.DEVNULL) as builder:
            invalid = "SELECT 1 FROM pg_index WHERE NOT indisvalid"
            wait_for(lambda: trial.sql(invalid), "the index is there, and not valid")
            code, output = trial.run()
            trial.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%'")
            builder.wait()
    assert code == 0, output
    trial.execute("t2", "SELECT 1")
    assert "ix_slow" in error(trial.run()[1]), "when nobody builds it any more, it is one"


def test_a_newer_schema_is_left_as_it_is_and_another_programs_is_refused(trial: Trial, database: str) -> None:
    trial.execute("t1", "CREATE TABLE first (n integer)")
    assert trial.run()[0] == 0
    (trial.service.folder / "migrations" / "versions" / "t1.py").unlink()
    code, output = trial.run()
    assert code == 0, output
    assert "a newer one made it" in output
    trial.server.sql(
        "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('x')", database
    )
    code, output = trial.run(DATABASE_URL=database)
    assert code == 1
    assert "has no table idempotency_keys, items: it is another program's" in error(output)


@pytest.mark.with_all
def test_the_other_commands_work_too(trial: Trial) -> None:
    before = trial.newest
    trial.write("t1", INDEX, "Find items by name")
    code, output = trial.run("db", "upgrade", "--sql")
    assert code == 0, output
    assert "COMMIT;\n\nCREATE UNIQUE INDEX CONCURRENTLY ix_items_name" in output
    assert trial.run("db", "upgrade")[0] == 0
    code, output = trial.run("db", "current")
    assert "t1 (head)" in output
    code, output = trial.run("db", "downgrade")
    assert code == 0, output
    assert trial.revision() == before
    assert trial.run("db", "stamp", "head")[0] == 0
    assert trial.revision() == "t1"
    code, output = trial.run("db", "migrate", "-m", "Drop it")
    assert code == 0, output
    assert list((trial.service.folder / "migrations" / "versions").glob("*_drop_it_drop_ix_items_name.py"))


def test_what_is_built_concurrently_runs_on_sqlite_too(trial: Trial) -> None:
    trial.write("t1", INDEX, "Find items by name")
    code, output = trial.run(DATABASE_URL=f"sqlite:///{trial.service.state}/new.db")
    assert code == 0, output
    assert "-> t1, Find items by name: done" in output


def test_a_pooler_is_refused_unless_somebody_chose_it(trial: Trial) -> None:
    trial.execute("t1", "SELECT 1")
    with pooler(trial) as pooled:
        code, output = trial.run(DATABASE_URL=pooled)
        assert code == 1
        assert "Set DATABASE_MIGRATION_URL to the database itself" in error(output)
        code, output = trial.run(DATABASE_URL=pooled, DATABASE_MIGRATION_URL=trial.url)
        assert code == 0, output


def test_the_migrations_of_the_template_hurt_nobody(folder: Path, venv: Path) -> None:
    """The linter of the service, on the migrations that it is rendered with; `make check` of this repository."""
    command = [str(venv / "bin" / "python"), "scripts/lint_migrations.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
