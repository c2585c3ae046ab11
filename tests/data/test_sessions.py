"""Sessions and forms of a running service: on Redis and in the cookie, and through a change of SECRET_KEY."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from boot.conftest import Start, prepare
from support.browser import Browser
from support.redis import Redis, redis
from support.service import Service, wait_for

FORMER, NEXT = "Wb7kQ2zXv9Tn4RmLc6JpYd8HsFg3Ae5U", "Nq5rT8yUe2Kx7BvZm4WcPj9LdHs6Gf3A"
HOURS = 3600
KEY = "sess:*"
# Signs an id as it was signed some seconds ago, for each number of seconds.
SIGN = """
import sys, time, wsgi
signer, now = wsgi.app.session_interface.signer, time.time()
for age in sys.argv[2:]:
    signer.get_timestamp = lambda: int(now) - int(age)
    print(signer.sign(sys.argv[1]).decode())
"""

pytestmark = pytest.mark.default_class


@pytest.fixture(params=["redis", "cookie"])
def either(request: pytest.FixtureRequest, on_redis: Service, service: Service) -> Service:
    """A service with Redis, and one without."""
    return on_redis if request.param == "redis" else service


def log_in(service: Service, user: str = "ann") -> Browser:
    browser = Browser()
    answer = browser.post(service, "/trial/login", csrf_token=browser.open_form(service, "/trial/login"), user=user)
    assert answer.json["user"] == user
    return browser


def user(browser: Browser, service: Service) -> str | None:
    """Whom the service takes the browser for."""
    answer = browser.get(service, "/trial/whoami")
    assert answer.status == 200
    name: str | None = answer.json["user"]
    return name


def commands(server: Redis) -> dict[str, int]:
    """How often Redis was asked to read or write a value since `CONFIG RESETSTAT`."""
    lines = [line.split(":") for line in server.ask("INFO", "commandstats").splitlines() if line.startswith("cmdstat_")]
    calls = {name.removeprefix("cmdstat_"): int(rest.split(",")[0].removeprefix("calls=")) for name, rest in lines}
    return {name: count for name, count in calls.items() if name in ("get", "set", "del", "expire", "ttl", "exists")}


# Where a session is


def test_a_session_made_by_one_worker_is_seen_by_the_other(on_redis: Service) -> None:
    browser, pids = log_in(on_redis), set()

    def ask() -> bool:
        answer = browser.get(on_redis, "/trial/whoami").json
        assert answer["user"] == "ann"
        pids.add(answer["pid"])
        return len(pids) == 2

    wait_for(ask, "both workers have answered")


def test_a_session_lasts_eight_hours_in_a_cookie_that_scripts_cannot_read(either: Service, redis_server: Redis) -> None:
    answer = log_in(either).get(either, "/trial/see")
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert re.search("Expires=|Max-Age=28800", cookie)
    assert answer.headers["Vary"] == "Cookie"
    for key in redis_server.ask("KEYS", KEY).split():
        assert 28700 < int(redis_server.ask("TTL", key)) <= 28800


def test_what_a_view_keeps_comes_back_as_it_was(either: Service) -> None:
    browser = log_in(either)
    browser.get(either, "/trial/see")
    assert browser.get(either, "/trial/whoami").json["seen"] == "datetime", "which JSON alone does not have"


def test_redis_is_asked_by_nobody_who_does_not_touch_a_session(on_redis: Service, redis_server: Redis) -> None:
    browser = log_in(on_redis)
    redis_server.ask("CONFIG", "RESETSTAT")
    for path in ("/", "/api/items", "/nowhere", "/static/app.css", "/trial/fail"):
        assert "Set-Cookie" not in browser.get(on_redis, path).headers
    made = browser.send(on_redis, "POST", "/api/items", b'{"name": "Bolt"}', {"Content-Type": "application/json"})
    assert made.status == 201
    assert commands(redis_server) == {"del": 1}, "what was cached of items"
    redis_server.ask("CONFIG", "RESETSTAT")
    assert user(browser, on_redis) == "ann"
    assert commands(redis_server) == {"get": 1}, "the seeded difference: a route that reads its session"
    browser.get(on_redis, "/trial/see")
    assert commands(redis_server) == {"get": 2, "set": 1}
    assert user(Browser(), on_redis) is None
    assert commands(redis_server) == {"get": 2, "set": 1}, "without a cookie there is nothing to ask for"
    browser.get(on_redis, "/trial/logout")
    assert commands(redis_server) == {"get": 2, "set": 1, "del": 1}


def test_who_stays_active_stays_logged_in_and_redis_is_told_once_in_two_hours(
    on_redis: Service, venv: Path, redis_server: Redis
) -> None:
    browser = log_in(on_redis)
    key, (sid, *_) = redis_server.ask("KEYS", KEY), browser.cookies["session"].split(".")
    ages = [2 * HOURS - 60, 2 * HOURS + 60, 8 * HOURS + 60]
    environ = {**on_redis.all_environ, "PYTHONPATH": str(on_redis.folder)}
    command = [str(venv / "bin" / "python"), "-c", SIGN, sid, *map(str, ages)]
    signed = subprocess.run(command, env=environ, cwd=on_redis.folder, capture_output=True, text=True, check=True)
    young, older, ended = signed.stdout.split()

    def visit(cookie: str) -> tuple[str | None, bool, bool]:
        """Who it is for the service, and whether a visit with this cookie renews that in Redis and the cookie itself."""
        redis_server.ask("EXPIRE", key, "100")
        browser.cookies["session"] = cookie
        known = user(browser, on_redis)
        return known, int(redis_server.ask("TTL", key)) > 28700, browser.cookies["session"] != cookie

    assert visit(young) == ("ann", False, False)
    assert visit(older) == ("ann", True, True)
    assert visit(ended) == (None, False, False)


# Whose a session is


def test_a_login_has_an_id_that_nobody_knew_before(on_redis: Service, redis_server: Redis) -> None:
    browser = Browser()
    token = browser.open_form(on_redis, "/trial/login")
    planted = Browser(dict(browser.cookies))  # an attacker who knows the cookie from before
    assert browser.post(on_redis, "/trial/login", csrf_token=token, user="ann").json["user"] == "ann"
    assert user(planted, on_redis) is None
    assert len(redis_server.ask("KEYS", KEY).split()) == 1, "the one from before is gone"


def test_an_id_that_redis_does_not_know_is_not_taken_over(on_redis: Service, redis_server: Redis) -> None:
    browser = log_in(on_redis)
    former = browser.cookies["session"].split(".")[0]
    assert redis_server.ask("KEYS", KEY) == f"sess:{former}"
    redis_server.ask("FLUSHALL")
    assert browser.get(on_redis, "/trial/see").json["user"] is None
    assert redis_server.ask("KEYS", KEY) not in ("", f"sess:{former}")


def test_a_logout_ends_a_session_for_whoever_has_its_cookie(on_redis: Service, redis_server: Redis) -> None:
    browser = log_in(on_redis)
    copy = Browser(dict(browser.cookies))
    browser.get(on_redis, "/trial/logout")
    assert browser.cookies == {}
    assert redis_server.ask("KEYS", KEY) == ""
    assert user(copy, on_redis) is None


def test_a_request_that_began_before_a_logout_does_not_undo_it(on_redis: Service, redis_server: Redis) -> None:
    browser = log_in(on_redis)
    assert browser.get(on_redis, "/trial/write-late").status == 200
    assert redis_server.ask("KEYS", KEY) == ""


def test_a_cookie_that_was_tampered_with_is_no_session_and_no_error(either: Service) -> None:
    cookie = log_in(either).cookies["session"]
    sid, _, signature = cookie.partition(".")
    for tampered in ("", "x", "a.b.c", f"{sid}x.{signature}", cookie[:-4], f".{cookie}", "\xff" * 50, "x" * 4000):
        assert user(Browser({"session": tampered}), either) is None
    assert user(Browser({"session": cookie}), either) == "ann"


@dataclass
class Canary:
    """Whoever unpickles it makes a folder."""

    folder: Path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_what_is_pickled_in_redis_is_not_run_and_is_no_session(
    on_redis: Service, redis_server: Redis, tmp_path: Path
) -> None:
    browser = log_in(on_redis)
    pickled = pickle.dumps(Canary(tmp_path / "harm"), protocol=0).decode()  # a protocol that redis-cli can be given
    for foreign in (pickled, "[1]", "null", "no JSON", "\xff"):
        redis_server.ask("SET", redis_server.ask("KEYS", KEY), foreign)
        assert user(browser, on_redis) is None
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickled.encode())
    assert (tmp_path / "harm").exists(), "the seeded defect: this is what unpickling it does"


def test_what_json_cannot_hold_fails_the_request_that_wanted_to_keep_it(on_redis: Service) -> None:
    browser = log_in(on_redis)
    assert browser.get(on_redis, "/trial/keep-a-set").status == 500
    assert "set is not JSON serializable" in on_redis.wait_for_log(level="ERROR", exc_info="save_session")["exc_info"]
    assert user(browser, on_redis) == "ann"


def test_a_redis_that_is_full_keeps_nothing_new_and_fails_no_request(on_redis: Service, redis_server: Redis) -> None:
    browser = log_in(on_redis)
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        assert browser.get(on_redis, "/trial/see").status == 200
        on_redis.wait_for_log(level="WARNING", logger="app.redis_sessions", message="a session is lost: .*memory")
        assert user(browser, on_redis) == "ann"
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory", "0")


# Redis is gone


def test_while_redis_is_frozen_nobody_is_known_and_then_everybody_again(start: Start, tmp_path: Path) -> None:
    with redis(tmp_path) as server:
        service = start(REDIS_URL=server.url, WEB_CONCURRENCY="1")
        browser, leaver = log_in(service), log_in(service, "bea")
        token, kept = browser.open_form(service, "/trial/login"), dict(browser.cookies)
        server.process.send_signal(signal.SIGSTOP)
        for _ in range(3):
            assert user(browser, service) is None
            for path in ("/trial/see", "/trial/see-and-forget"):
                assert browser.get(service, path).status == 200
            assert browser.post(service, "/trial/login", csrf_token=token, user="bea").status == 503
        assert browser.cookies == kept
        assert leaver.get(service, "/trial/logout").status == 200
        assert leaver.cookies == {}, "a logout is one for this browser at least"
        assert Browser().get(service, "/trial/login").status == 200
        service.wait_for_log(message="^redis is down")
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: user(browser, service) == "ann", "ann is known again")
        assert browser.post(service, "/trial/login", csrf_token=token, user="cas").status == 200
    service.wait_for_log(message="^redis is up")
    told = [line["message"] for line in service.log() if line["message"].startswith("redis is ")]
    assert len(told) == 2, "a line a change"


def test_redis_that_ends_in_the_middle_of_a_request_costs_sessions_and_no_error(start: Start, tmp_path: Path) -> None:
    with redis(tmp_path) as server:
        service = start(REDIS_URL=server.url, WEB_CONCURRENCY="1")
        browser = log_in(service)
        assert browser.get(service, "/trial/end-redis").status == 200
        server.process.wait(10)
        assert user(browser, service) is None
        server.start()
        wait_for(lambda: user(log_in(service), service) == "ann", "sessions are kept again")
    assert [line["status"] for line in service.log() if line.get("status", 0) >= 500] == []


# Another SECRET_KEY


@dataclass
class Instances:
    """Instances of one service, by what they were given on the way to another SECRET_KEY."""

    former: Service
    prepared: Service
    changed: Service
    done: Service


@pytest.fixture(scope="module", params=["redis", "cookie"])
def instances(
    request: pytest.FixtureRequest,
    folder: Path,
    venv: Path,
    redis_server: Redis,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Instances]:
    store = {"REDIS_URL": redis_server.url} if request.param == "redis" else {}
    keys = [(FORMER, ""), (FORMER, NEXT), (NEXT, FORMER), (NEXT, "")]
    with ExitStack() as running:
        services = []
        for key, fallback in keys:
            environ = {"SECRET_KEY": key, "SECRET_KEY_FALLBACKS": fallback, "WEB_CONCURRENCY": "1", **store}
            services.append(prepare(folder, venv, tmp_path_factory.mktemp("rotation"), environ))
            services[-1].start()
            running.callback(services[-1].clean_up)
        for service in services:
            service.wait_until_live()
        yield Instances(*services)


def takes(service: Service, maker: Service) -> tuple[bool, bool]:
    """Whether a service takes the session, and the form, that another one made."""
    browser = log_in(maker)
    token = browser.open_form(maker, "/trial/login")
    known = user(Browser(dict(browser.cookies)), service) == "ann"
    return known, browser.post(service, "/trial/login", csrf_token=token, user="bea").status == 200


def test_a_session_and_a_form_from_before_a_new_key_are_good_after_it(instances: Instances) -> None:
    assert takes(instances.changed, instances.former) == (True, True)


def test_during_a_rollout_that_was_prepared_each_takes_what_the_other_signed(instances: Instances) -> None:
    assert takes(instances.prepared, instances.former) == (True, True)
    assert takes(instances.former, instances.prepared) == (True, True)
    assert takes(instances.changed, instances.prepared) == (True, True)
    assert takes(instances.prepared, instances.changed) == (True, True)


def test_without_the_preparation_the_former_instances_refuse_what_the_new_ones_signed(instances: Instances) -> None:
    assert takes(instances.former, instances.changed) == (False, False)


def test_what_was_used_since_outlives_the_former_key_and_nothing_else_does(instances: Instances) -> None:
    assert takes(instances.done, instances.changed) == (True, True)
    assert takes(instances.done, instances.former) == (False, False), "the seeded defect: no fallback"
