"""No write is lost, doubled or half done: not by clients that race, not by retries, not by kill -9."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from boot.conftest import Start
from support.postgres import Postgres
from support.service import Answer, Service, wait_for

pytestmark = pytest.mark.default_class
ITEMS = "/api/items"


def create(service: Service, name: str, quantity: int = 0, key: str = "", path: str = ITEMS) -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    return service.request("POST", path, {"name": name, "quantity": quantity}, headers)


@contextmanager
def psql(server: Postgres, url: str) -> Iterator[Callable[[str], None]]:
    """`session("BEGIN;")`: one session of psql; a statement has been run when the call returns."""
    command = [str(server.programs / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        to, out = process.stdin, process.stdout

        def session(statement: str) -> None:
            to.write(f"{statement}\n\\echo done\n")
            to.flush()
            assert out.readline() == "done\n"

        yield session
        to.close()


# Clients that race


def increment(service: Service, where: str, change: Callable[[Answer], Answer]) -> int:
    """Add one, as a client does who reads, changes, and begins anew when somebody else was faster: how often he was."""
    for attempt in itertools.count():
        changed = change(service.get(where))
        if changed.status == 200:
            return attempt
        assert changed.status == 412, changed.body
    raise AssertionError("unreachable")


def increment_together(service: Service, where: str, change: Callable[[Answer], Answer]) -> tuple[int, int]:
    """Two hundred increments by six clients: what the quantity is afterwards, and how many attempts were refused."""
    with ThreadPoolExecutor(6) as clients:
        refused = sum(clients.map(lambda _: increment(service, where, change), range(200)))
    return service.get(where).json["quantity"], refused


def test_two_hundred_increments_at_once_lose_none(start: Start, migrated: str) -> None:
    service = start(DATABASE_URL=migrated, LOG_LEVEL="WARNING")
    where = create(service, "counter").headers["Location"]

    def change(seen: Answer) -> Answer:
        return service.request(
            "PATCH", where, {"quantity": seen.json["quantity"] + 1}, {"If-Match": seen.headers["ETag"]}
        )

    quantity, refused = increment_together(service, where, change)
    assert quantity == 200
    assert refused > 0, "they did race"
    assert service.get(where).headers["ETag"] == '"201"'
    assert [line for line in service.log() if line["level"] == "ERROR"] == []


@pytest.mark.with_all
def test_increments_without_a_version_are_lost(start: Start, migrated: str) -> None:
    service = start(DATABASE_URL=migrated, LOG_LEVEL="WARNING")
    where = create(service, "counter").headers["Location"]
    number = where.rpartition("/")[2]

    def change(seen: Answer) -> Answer:
        return service.request("PATCH", f"/trial/unguarded/{number}", {"quantity": seen.json["quantity"] + 1})

    assert increment_together(service, where, change)[0] < 200


# Retries


@pytest.mark.parametrize("on", ["PostgreSQL", "SQLite"])
def test_twins_at_once_make_one_item_and_get_the_same_answer(start: Start, on: str, migrated: str) -> None:
    service = start(LOG_LEVEL="WARNING", **({"DATABASE_URL": migrated} if on == "PostgreSQL" else {}))
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda number: create(service, f"n{number // 8}", key=f"{number // 8}"), range(64)))
    assert [answer.status for answer in answers] == [201] * 64
    for number in range(8):
        twins = answers[number * 8 : number * 8 + 8]
        assert len({(twin.headers["Location"], twin.headers["ETag"], twin.body) for twin in twins}) == 1
        assert [twin.headers["Idempotent-Replayed"] for twin in twins].count("true") == 7
    assert len(service.get(f"{ITEMS}?limit=100").json["items"]) == 8


def test_a_twin_waits_for_the_first_and_no_longer_than_five_seconds(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    service = start(DATABASE_URL=migrated)
    answer = create(service, "slow", key="k")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT%'"
    with psql(postgres_server, migrated) as first, ThreadPoolExecutor(1) as clients:
        first("CREATE TEMP TABLE kept AS SELECT * FROM idempotency_keys; DELETE FROM idempotency_keys;")
        first("BEGIN; INSERT INTO idempotency_keys SELECT * FROM kept;")
        twin = clients.submit(create, service, "slow", key="k")
        wait_for(lambda: postgres_server.sql(waiting, migrated), "it waits")
        gave_up = twin.result()
        assert (gave_up.status, gave_up.headers["Retry-After"]) == (409, "1")
        twin = clients.submit(create, service, "slow", key="k")
        wait_for(lambda: postgres_server.sql(waiting, migrated), "it waits")
        first("COMMIT;")
        assert (twin.result().status, twin.result().body) == (201, answer.body)
    assert len(service.get(ITEMS).json["items"]) == 1


@pytest.mark.parametrize(("key", "made"), [("a-key", 1), ("", 2)])
def test_a_create_whose_answer_was_lost_is_repeated_with_a_key_and_doubled_without_one(
    start: Start, migrated: str, key: str, made: int
) -> None:
    service = start(DATABASE_URL=migrated)

    def attempt(die: str = "") -> Answer | None:
        headers = {"Die": die, **({"Idempotency-Key": key} if key else {})}
        with contextlib.suppress(OSError, http.client.HTTPException):
            return service.request("POST", "/trial/mortal", {"name": "bolt"}, headers)
        return None

    assert attempt("before the commit") is None
    assert service.get(ITEMS).json["items"] == []
    assert attempt("after the commit") is None
    (committed,) = service.get(ITEMS).json["items"]
    answer = attempt()
    assert answer is not None
    assert (answer.status, answer.json == committed) == (201, made == 1)
    assert len(service.get(ITEMS).json["items"]) == made


def test_old_answers_are_deleted_past_those_that_somebody_else_holds(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    service = start(DATABASE_URL=migrated)
    for number in range(4):
        create(service, "bolt", key=f"key-{number}")
    old = "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE id IN (SELECT id {} LIMIT {})"
    postgres_server.sql(old.format("FROM idempotency_keys", 3), migrated)
    with psql(postgres_server, migrated) as session:
        session("BEGIN;")
        session(old.format("FROM idempotency_keys WHERE created_at < now() - interval '1 day'", 1) + ";")
        assert service.request("POST", "/trial/purge").status == 200
        session("COMMIT;")
    assert postgres_server.sql("SELECT count(*) FROM idempotency_keys", migrated) == [["2"]]
    assert [line for line in service.log() if line["level"] == "WARNING"] == []


# kill -9


class Creates:
    """A thousand creates by eight clients, each of whom tells what was acknowledged, and goes on after a crash."""

    def __init__(self, service: Service, path: str = ITEMS) -> None:
        self.service, self.path = service, path
        self.left = list(range(1000))
        self.acknowledged: set[int] = set()
        self.alive = threading.Event()
        self.alive.set()

    def run(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                number = self.left.pop()
                while not self.attempt(number):
                    assert self.alive.wait(30), "it was started again"

    def attempt(self, number: int) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = create(self.service, f"n{number}", number, f"create-{number}", self.path)
            assert answer.status == 201, answer.body
            self.acknowledged.add(number)
            return True
        return False


def kill_in_the_middle(service: Service, path: str = ITEMS) -> Creates:
    """Kill every process of the service at once, when 400 of 1,000 creates were acknowledged; start it again."""
    creates = Creates(service, path)
    with ThreadPoolExecutor(8) as clients:
        running = [clients.submit(creates.run) for _ in range(8)]
        wait_for(lambda: len(creates.acknowledged) >= 400, "400 creates", 60)
        creates.alive.clear()
        os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        wait_for(lambda: not service.session(), "no process left")
        assert len(creates.acknowledged) < 1000, "it was in the middle"
        service.start()
        service.wait_until_live()
        creates.alive.set()
        for client in running:
            client.result(60)
    return creates


def test_kill_9_loses_nothing_acknowledged_and_leaves_nothing_half_done(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    creates = kill_in_the_middle(start(DATABASE_URL=migrated, LOG_LEVEL="WARNING"))
    rows = postgres_server.sql("SELECT name, quantity, version FROM items", migrated)
    assert creates.acknowledged == set(range(1000))
    assert sorted(rows) == sorted([f"n{number}", str(number), "1"] for number in range(1000)), "each of them once"
    stored = postgres_server.sql("SELECT count(*), count(body) FROM idempotency_keys", migrated)
    assert stored == [["1000", "1000"]], "and its answer with it"


def test_kill_9_loses_what_was_acknowledged_before_it_was_written(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    creates = kill_in_the_middle(start(DATABASE_URL=migrated, LOG_LEVEL="WARNING"), "/trial/write-behind")
    assert creates.acknowledged == set(range(1000))
    assert postgres_server.sql("SELECT count(*) FROM items", migrated) == [["0"]]


# Pages


def read_all(service: Service, path: str = ITEMS, after_page: Callable[[int], None] = lambda page: None) -> list[str]:
    """The names on all pages in turn, ten a page; `after_page` is called after each, with its number."""
    seen: list[str] = []
    cursor: object = ""
    for page in itertools.count(1):
        answer = service.get(f"{path}?limit=10&cursor={cursor}").json
        seen += [item["name"] for item in answer["items"]]
        cursor = answer["next_cursor"]
        after_page(page)
        if cursor is None:
            break
    return seen


def read_among_writers(service: Service, server: Postgres, url: str, path: str) -> list[str]:
    """The names that a reader sees of 500 rows that stay, among 500 that go meanwhile and others that come."""
    server.sql(
        "INSERT INTO items (name, quantity, version, created_at, updated_at) SELECT "
        "(CASE number % 2 WHEN 0 THEN 'stays ' ELSE 'goes ' END) || number, 0, 1, now(), now() "
        "FROM generate_series(0, 999) AS number",
        url,
    )
    goes = [row[0] for row in server.sql("SELECT id FROM items WHERE name LIKE 'goes%' ORDER BY id DESC", url)]
    ended = threading.Event()

    def write() -> int:
        for written in itertools.count():
            if ended.is_set():
                break
            assert create(service, f"comes {threading.get_ident()} {written}").status == 201
            assert service.request("DELETE", f"{ITEMS}/{goes.pop()}").status == 204
        return written

    with ThreadPoolExecutor(3) as clients:
        running = [clients.submit(write) for _ in range(3)]
        wait_for(lambda: len(goes) < 495, "they write")
        seen = read_all(service, path)
        ended.set()
        assert sum(client.result() for client in running) > 20, "they wrote while it was read"
    return seen


def test_pages_show_what_stays_once_while_others_come_and_go(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    service = start(DATABASE_URL=migrated, LOG_LEVEL="WARNING")
    seen = read_among_writers(service, postgres_server, migrated, ITEMS)
    assert [name for name in seen if name.startswith("stays")] == [f"stays {number}" for number in range(0, 1000, 2)]
    assert len(seen) == len(set(seen)), "nothing stands on two pages"


def test_pages_counted_from_the_first_row_pass_some_over(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    service = start(DATABASE_URL=migrated, LOG_LEVEL="WARNING")
    seen = read_among_writers(service, postgres_server, migrated, "/trial/by-offset")
    assert len({name for name in seen if name.startswith("stays")}) < 500


def test_what_is_committed_late_may_be_on_no_page_of_a_reading_and_is_on_the_next(
    start: Start, migrated: str, postgres_server: Postgres
) -> None:
    """A row takes its number when it is inserted, and can be seen when that is committed: others overtake it."""
    service = start(DATABASE_URL=migrated)
    before, after = [f"before {number}" for number in range(5)], [f"after {number}" for number in range(15)]
    for name in before:
        create(service, name)
    with psql(postgres_server, migrated) as session:
        session("BEGIN; INSERT INTO items VALUES (DEFAULT, 'late', 0, 1, now(), now());")
        for name in after:
            create(service, name)
        seen = read_all(service, ITEMS, lambda page: session("COMMIT;") if page == 1 else None)
    assert seen == before + after, "page 1 was past its number already"
    assert read_all(service) == [*before, "late", *after]
