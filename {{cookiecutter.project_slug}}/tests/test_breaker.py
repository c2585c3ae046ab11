"""The breaker: it opens at the first failure, and what is told is whether the dependency answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from app import breaker
from app.breaker import Breaker, Down


class Dependency:
    """Answers each question as the test says: `answers.put(True)`."""

    def __init__(self) -> None:
        self.answers: Queue[bool] = Queue()
        self.asked: Queue[None] = Queue()
        self.told: Queue[str] = Queue()
        self.breaker = Breaker("stock", self.ask)
        self.breaker.on_change = self.told.put

    def ask(self) -> None:
        self.asked.put(None)
        if not self.answers.get(timeout=30):
            raise OSError("still down")

    def wait_until_closed(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "wait for stock":
                thread.join(30)


@pytest.fixture
def dependency(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dependency]:
    monkeypatch.setattr(breaker, "PAUSE", 0)
    dependency = Dependency()
    yield dependency
    dependency.answers.put(True)
    dependency.wait_until_closed()


def test_a_failure_that_was_one_answer_alone_is_told_nobody(dependency: Dependency) -> None:
    dependency.breaker.check()
    dependency.breaker.trip(TimeoutError())
    with pytest.raises(Down, match="stock is down"):
        dependency.breaker.check()
    dependency.answers.put(True)
    dependency.wait_until_closed()
    dependency.breaker.check()
    assert dependency.told.empty()


def test_what_stays_down_is_told_once_and_once_when_it_is_back(dependency: Dependency) -> None:
    for _ in range(3):
        dependency.breaker.trip(TimeoutError())
    for answer in (False, False, False, True):
        with pytest.raises(Down):
            dependency.breaker.check()
        dependency.answers.put(answer)
    dependency.wait_until_closed()
    dependency.breaker.check()
    assert [dependency.told.get(timeout=30) for _ in range(2)] == ["TimeoutError", ""]
    assert dependency.told.empty()
    assert dependency.asked.qsize() == 4, "by one thread, however many requests failed"
