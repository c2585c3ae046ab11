"""The cache without Redis, and with one that is gone: it computes, and nobody sees more of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from queue import Queue

import pytest
from flask import Flask

from app import cache
from tests.conftest import MakeApp

GONE = "redis://127.0.0.1:1/0"  # nothing answers there


@pytest.fixture(params=["", GONE], ids=["none", "gone"])
def app(make_app: MakeApp, request: pytest.FixtureRequest) -> Iterator[Flask]:
    app = make_app(REDIS_URL=request.param, LOG_LEVEL="ERROR")
    with app.app_context():
        yield app


@pytest.mark.usefixtures("app")
def test_it_computes_every_time() -> None:
    numbers = count()
    assert [cache.get_or_compute("number", 30, lambda: next(numbers)) for _ in range(3)] == [0, 1, 2]
    cache.forget("number", "another")
    assert cache.get_or_compute("number", 30, lambda: next(numbers)) == 3


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("value", "given"),
    [
        ({"a": (1, 2.5, None, "ü")}, {"a": [1, 2.5, None, "ü"]}),
        ({1: True}, {"1": True}),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000Z"),
    ],
)
def test_a_value_is_what_json_gives_back(value: object, given: object) -> None:
    assert cache.get_or_compute("value", 30, lambda: value) == given


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("value", [object(), 2**64, b"bytes"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        cache.get_or_compute("value", 30, lambda: value)


@pytest.mark.usefixtures("app")
def test_a_computation_that_fails_fails_for_its_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        cache.get_or_compute("ratio", 30, lambda: 1 / 0)


def test_a_redis_that_is_gone_is_told_once(make_app: MakeApp) -> None:
    app = make_app(REDIS_URL=GONE)
    (breaker,) = app.extensions["breakers"]
    told: Queue[str] = Queue()
    breaker.on_change = told.put
    with app.app_context():
        for _ in range(10):
            cache.get_or_compute("value", 30, str)
            cache.forget("value")
    assert app.test_client().get("/healthz/ready").get_json()["checks"]["redis"]["state"] == "down"
    assert told.get(timeout=30) == "ConnectionError"
    assert told.empty()
