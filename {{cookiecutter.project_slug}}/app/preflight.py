"""What a deploy asks before it goes on: `flask preflight`, for people or with `--json`; exit code 0 or 1.

A check is here only if an outage that can be named happens without it. Whatever a service must not even start with
is refused by `app/settings.py`; here is what only the database, or the deployment as a whole, can tell.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import click
from flask import Flask

from app.capacity import SECONDS, broken_rungs, find_limits, load_answers
from app.database.preflight import check_connections, check_database, check_migrations, check_pooler
from app.extensions import db
from app.settings import Settings


@dataclass(frozen=True)
class Finding:
    """What a check found: `detail` says what it looked at or what would happen, `mend` the command against it."""

    check: str
    ok: bool
    detail: str
    mend: str = ""


def check_debug(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """Debugging shows tracebacks, and with them secrets, to whoever makes an error happen."""
    on = [name for name in ("DEBUG", "TESTING") if settings.production and app.config[name]]
    mend = "find what sets it: grep -rn 'DEBUG\\|TESTING' app"
    return not on, f"{' and '.join(on)} on in production" if on else "off", mend


def check_memory(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """The kernel kills a worker, with the requests in it, when memory runs out."""
    plan, limits = settings.plan(), find_limits()
    detail = f"{plan.workers} workers need about {plan.memory_mb} of {limits.memory_mb} MB"
    return plan.memory_mb <= limits.memory_mb, detail, "unset WEB_CONCURRENCY GUNICORN_WORKERS, or give it more memory"


def check_ports(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """The second of two servers on a port serves nothing; the metrics would be missing, and their alerts silent."""
    taken = [bind.rpartition(":")[2] for bind in settings.bind] or [str(settings.port)]
    same = str(settings.metrics_port) in taken
    detail = f"metrics on {settings.metrics_port}" + (", where requests are served too" if same else "")
    return not same, detail, f"export METRICS_PORT={settings.metrics_port + 1}"


def check_proxies(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """Unbelieved, a proxy is taken for every client, and each request for one without TLS: redirects go in circles."""
    wrong = settings.production and settings.trusted_proxy_hops == 0
    detail = f"TRUSTED_PROXY_HOPS is {settings.trusted_proxy_hops}"
    if wrong:
        detail += ": the proxy would be taken for every client"
    return not wrong, detail, "export TRUSTED_PROXY_HOPS=1"


def check_driver(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """A driver that waits without letting others run: one slow statement stops every request and probe of a worker."""
    driver, waits = db.engine.dialect.driver, os.environ.get("PSYCOPG_WAIT_FUNC", "")
    blocks = settings.worker_class == "gevent" and (driver != "psycopg" or waits == "wait_c")
    detail = f"{settings.worker_class} with {driver} {waits}".strip()
    if blocks:
        detail += ", which stops all requests of a worker while it waits" + (
            "" if settings.production else ": never mind"
        )
    return not (blocks and settings.production), detail, "unset PSYCOPG_WAIT_FUNC; export GUNICORN_WORKER_CLASS=gthread"


def check_ladders(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """A timeout that ends before the one inside it cuts off what is still worked on."""
    broken = broken_rungs(seconds_in_force())
    return not broken, "; ".join(broken) or "timeouts and idle times in order", "unset GUNICORN_CMD_ARGS"


def check_redis(app: Flask, settings: Settings) -> tuple[bool, str, str]:
    """One that cannot be written to keeps nobody logged in. None at all is told and does not fail.

    Limits are a multiple of what was set then, but whoever had to mend that in a hurry would switch them off.
    """
    if settings.redis_url is None:
        counters = settings.plan().workers * int(load_answers()["max_replicas"])
        alone = (
            f"; up to {counters} workers count {settings.ratelimit_writes} each" if settings.ratelimit_enabled else ""
        )
        return True, f"there is none{alone}", ""
    from redis import RedisError

    try:
        app.extensions["redis"].set("cache:preflight", "", px=1)
    except RedisError as error:
        return False, f"{type(error).__name__}: {error}", "see that REDIS_URL is right"
    return True, "Redis takes writes", ""


CHECKS: dict[str, Callable[[Flask, Settings], tuple[bool, str, str]]] = {
    "debug": check_debug,
    "memory": check_memory,
    "ports": check_ports,
    "proxies": check_proxies,
    "driver": check_driver,
    "ladders": check_ladders,
    "database": check_database,
    "migrations": check_migrations,
    "connections": check_connections,
    "redis": check_redis,
    "pooler": check_pooler,
}


def seconds_in_force() -> dict[str, float]:
    """`SECONDS`, with what GUNICORN_CMD_ARGS changes of them."""
    from gunicorn.config import Config

    given = vars(Config().parser().parse_args(shlex.split(os.environ.get("GUNICORN_CMD_ARGS", ""))))
    names = {"timeout": "request", "graceful_timeout": "graceful", "keepalive": "keepalive"}
    return SECONDS | {names[name]: float(given[name]) for name in names if given[name] is not None}


def examine(app: Flask, skip: Iterable[str] = ()) -> list[Finding]:
    """Run every check in the context of `app`, but for those whose names are in `skip`."""
    settings: Settings = app.extensions["settings"]
    results = {name: check(app, settings) for name, check in CHECKS.items() if name not in skip}
    return [Finding(name, ok, detail, "" if ok else mend) for name, (ok, detail, mend) in results.items()]


def report(findings: Iterable[Finding], as_json: bool) -> int:
    """Print the findings; the exit code is 1 if any of them is not well."""
    findings = list(findings)
    well = all(finding.ok for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": well, "checks": [asdict(finding) for finding in findings]}, indent=2))
    for finding in () if as_json else findings:
        click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:12} {finding.detail}")
        if finding.mend:
            click.echo(f"      {'':12} mend: {finding.mend}")
    return 0 if well else 1


def refuse(problems: list[str], as_json: bool) -> int:
    """Report settings with which no application can be made."""
    parts = (problem.partition(": ") for problem in problems)
    return report([Finding("settings", False, f"{name}: {detail}", "") for name, _, detail in parts], as_json)
