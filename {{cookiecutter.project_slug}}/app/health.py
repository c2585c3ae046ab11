"""Probes. Live: the process can answer. Ready: what a request needs can be reached.

A feature adds its own check with one line: `health.add_check(app, "payments", ping_payments)`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from flask import Blueprint, Flask, Response, current_app, jsonify

from app import database
from app.breaker import Breaker
from app.observability import metrics
from app.settings import SettingsError

State = Literal["up", "down", "behind"]
DEADLINE = 0.9  # seconds for all checks together: a probe is answered within one second
log = logging.getLogger(__name__)
blueprint = Blueprint("health", __name__, url_prefix="/healthz")


@dataclass
class Result:
    """What a check found last: its state, how long that took, and the error if there was one."""

    state: State = "down"
    ms: int = 0
    error: str = ""


class Question(threading.Thread):
    """A dependency asked once, in a thread of its own, so that one that hangs holds up nothing else."""

    def __init__(self, app: Flask, ask: Callable[[], State]) -> None:
        super().__init__(daemon=True)
        self.app, self.ask, self.result = app, ask, Result()

    def run(self) -> None:
        started = time.monotonic()
        try:
            with self.app.app_context():
                self.result.state = self.ask()
        except Exception as error:  # whatever a dependency throws, it is down
            self.result.error = type(error).__name__
        self.result.ms = round((time.monotonic() - started) * 1000)


class Check:
    """One dependency, which several probes may ask about at the same time."""

    def __init__(self, app: Flask, name: str, ask: Callable[[], State]) -> None:
        self.app, self.name, self.ask = app, name, ask
        self.required = False
        self.last_state: State = "up"
        self.question: Question | None = None
        self.lock = threading.Lock()

    def start(self) -> Question:
        """Ask, unless the last question is still open: a dependency that hangs costs one thread, not one a probe."""
        with self.lock:
            if self.question is None or not self.question.is_alive():
                self.question = Question(self.app, self.ask)
                self.question.start()
            return self.question

    def wait(self, question: Question, until: float) -> Result:
        """The answer, or "down" if there is none at `until` (seconds of the monotonic clock)."""
        question.join(max(0.0, until - time.monotonic()))
        late = question.is_alive()
        result = Result("down", round(DEADLINE * 1000), "no answer in time") if late else question.result
        self.report(result)
        return result

    def report(self, result: Result) -> None:
        metrics.DEPENDENCY_UP.labels(self.name).set(result.state == "up")
        with self.lock:  # probes that waited for the same answer tell its change once
            before, self.last_state = self.last_state, result.state
        if result.state != before:
            level = logging.INFO if result.state == "up" else logging.ERROR if self.required else logging.WARNING
            reason = f" ({result.error})" if result.error else ""
            log.log(level, "%s is %s%s, was %s", self.name, result.state, reason, before)


def init_app(app: Flask) -> None:
    """Add the probes and the checks of the database."""
    app.extensions["health"] = {}
    app.register_blueprint(blueprint)
    add_check(app, "database", database.ping)
    add_check(app, "migrations", database.compare_schema)


def add_breaker(app: Flask, breaker: Breaker) -> None:
    """Have readiness ask what a breaker guards, and tell its changes also when a request met them first."""

    def ask() -> State:
        breaker.check()
        try:
            breaker.ask()
        except Exception as error:
            breaker.trip(error)
            raise
        return "up"

    check = add_check(app, breaker.name, ask)
    breaker.on_change = lambda error: check.report(Result("down" if error else "up", 0, error))


def add_check(app: Flask, name: str, ask: Callable[[], State]) -> Check:
    """Have readiness ask `ask` about `name`: it returns "up" or "behind", or raises.

    It runs in an application context; let it give up within a second. READINESS_REQUIRED says whether readiness
    fails with it.
    """
    check = app.extensions["health"][name] = Check(app, name, ask)
    return check


def require(app: Flask, names: Iterable[str]) -> None:
    """Make readiness depend on these checks; what breakers guard has been added to them by now.

    Raises:
        SettingsError: there is no such check; a typing error would else switch one off.
    """
    for breaker in app.extensions["breakers"]:
        add_breaker(app, breaker)
    checks: dict[str, Check] = app.extensions["health"]
    unknown = sorted(set(names) - set(checks))
    if unknown:
        known = ", ".join(sorted(checks))
        raise SettingsError([f"READINESS_REQUIRED: has no check {', '.join(unknown)}; there are: {known}."])
    for name in names:
        checks[name].required = True


@blueprint.get("/live")
def live() -> Response:
    return jsonify(status="ok")


@blueprint.get("/ready")
def ready() -> tuple[Response, int]:
    checks: dict[str, Check] = current_app.extensions["health"]
    until = time.monotonic() + DEADLINE
    questions = {name: check.start() for name, check in checks.items()}
    results = {name: checks[name].wait(question, until) for name, question in questions.items()}
    failed = [name for name, result in results.items() if result.state != "up"]
    lost = any(checks[name].required for name in failed)
    status = "unavailable" if lost else "degraded" if failed else "ok"
    body = {
        name: {"state": result.state, "required": checks[name].required, "ms": result.ms}
        for name, result in results.items()
    }
    return jsonify(status=status, checks=body), 503 if lost else 200
