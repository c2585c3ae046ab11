"""Limits: who is counted, how often, and what a client is told; and that other routes know nothing of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Blueprint
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import limits
from app.validation import Operation
from tests.conftest import LogLines, MakeApp
from tests.test_cache import GONE

MakeClient = Callable[..., FlaskClient]
URL = "/api/stamps"
stamps = Blueprint("stamps", __name__, url_prefix=URL)


@stamps.post("")
@limits.writes
@Operation()
def stamp() -> str:
    return "stamped"


@stamps.put("")
@limits.writes
async def stamp_again() -> str:
    return "stamped"


@stamps.get("")
@Operation()
def show_stamps() -> str:
    return "none"


@pytest.fixture
def make_client(make_app: MakeApp) -> MakeClient:
    def make_client(**environ: str) -> FlaskClient:
        app = make_app(**environ)
        app.register_blueprint(stamps)
        return app.test_client()

    return make_client


def post(client: FlaskClient, address: str = "192.0.2.1", **headers: str) -> TestResponse:
    return client.post(URL, environ_base={"REMOTE_ADDR": address}, headers=headers)


def told(response: TestResponse) -> dict[str, int]:
    """What the headers say of limits."""
    return {name: int(value) for name, value in response.headers if name.startswith(("X-RateLimit", "Retry-After"))}


def test_what_is_too_much_is_a_problem_that_says_when_to_come_back(
    make_client: MakeClient, log_lines: LogLines
) -> None:
    client = make_client(RATELIMIT_WRITES="2 per minute")
    answers = [post(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [told(answer)["X-RateLimit-Remaining"] for answer in answers] == [1, 0, 0]
    assert {told(answer)["X-RateLimit-Limit"] for answer in answers} == {2}
    assert len({told(answer)["X-RateLimit-Reset"] for answer in answers}) == 1
    assert "Retry-After" not in answers[1].headers
    assert 1 <= told(answers[2])["Retry-After"] <= 61
    assert answers[2].content_type == "application/problem+json"
    assert answers[2].get_json()["detail"] == "At most 2 per minute from one client."
    assert {line["logger"] for line in log_lines()} == {"app.request"}, "nor is it worth another line"


def test_all_limited_views_share_what_a_client_may_do(make_client: MakeClient) -> None:
    client = make_client(RATELIMIT_WRITES="2 per minute")
    assert [client.open(URL, method=method).status_code for method in ("POST", "PUT", "POST")] == [200, 200, 429]


def test_of_several_rates_each_holds(make_client: MakeClient) -> None:
    client = make_client(RATELIMIT_WRITES="2 per hour; 3 per day")
    answers = [post(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert told(answers[0])["X-RateLimit-Limit"] == 2, "the one that ends first"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
        ("no address", "another one", False),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(
    make_client: MakeClient, first: str, second: str, same: bool
) -> None:
    client = make_client(RATELIMIT_WRITES="1 per hour")
    assert post(client, first).status_code == 200
    assert post(client, second).status_code == (429 if same else 200)


@pytest.mark.parametrize(("hops", "status"), [("0", 429), ("1", 200)])
def test_behind_a_proxy_the_client_is_who_the_proxy_says(make_client: MakeClient, hops: str, status: int) -> None:
    client = make_client(RATELIMIT_WRITES="1 per hour", TRUSTED_PROXY_HOPS=hops)
    post(client, **{"X-Forwarded-For": "203.0.113.1"})
    assert post(client, **{"X-Forwarded-For": "203.0.113.2"}).status_code == status
    assert post(client, **{"X-Forwarded-For": "forged, 203.0.113.2"}).status_code == 429


def test_switched_off_it_counts_nobody(make_client: MakeClient) -> None:
    client = make_client(RATELIMIT_WRITES="1 per hour", RATELIMIT_ENABLED="0")
    answers = [post(client) for _ in range(3)]
    assert [(answer.status_code, told(answer)) for answer in answers] == [(200, {})] * 3


def test_other_views_pay_nothing(make_client: MakeClient) -> None:
    client = make_client(RATELIMIT_WRITES="1 per hour")
    assert [(answer.status_code, told(answer)) for answer in [client.get(URL) for _ in range(3)]] == [(200, {})] * 3
    app = client.application
    hooks = (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs)
    assert "limit" not in str(hooks)


@pytest.mark.parametrize(("failure", "status"), [("open", 200), ("closed", 503)])
def test_while_redis_is_down_all_or_none_are_let_through_and_one_line_says_so(
    make_client: MakeClient, log_lines: LogLines, failure: str, status: int
) -> None:
    client = make_client(RATELIMIT_WRITES="1 per hour", REDIS_URL=GONE, RATELIMIT_ON_FAILURE=failure)
    answers = [post(client) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status] * 3
    client.get("/healthz/ready")
    lines = [line["message"] for line in log_lines() if line["logger"] != "app.request"]
    assert [line[:14] for line in lines if not line.startswith("migrations")] == ["redis is down "]
    if status == 503:
        assert told(answers[0]) == {"Retry-After": 1}
        assert answers[0].content_type == "application/problem+json"


@pytest.mark.parametrize(("enabled", "documented"), [("1", True), ("0", False)])
def test_the_document_knows_what_is_limited(make_client: MakeClient, enabled: str, documented: bool) -> None:
    described: dict[str, Any] = make_client(RATELIMIT_ENABLED=enabled).get("/api/openapi.json").get_json()["paths"][URL]
    assert ("429" in described["post"]["responses"]) == documented
    assert not documented or "Retry-After" in described["post"]["responses"]["429"]["headers"]
    assert "429" not in described["get"]["responses"]


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns after every step."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty")
def test_requests_that_are_counted_at_the_same_time_do_not_fail(make_app: MakeApp) -> None:
    storage = make_app().extensions["limits"].limiter.storage
    together = Barrier(8)

    def count_often() -> None:
        for _ in range(100):
            while storage.timer.is_alive():  # it is started anew by who counts when it has ended
                time.sleep(0.001)
            together.wait(30)
            storage.incr("one", 60)

    with ThreadPoolExecutor(8) as pool:
        for thread in [pool.submit(count_often) for _ in range(8)]:
            thread.result()
    assert storage.get("one") == 800
