"""What an error of the database means: to a client, and to whoever runs a command."""

from __future__ import annotations

import re

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from werkzeug.exceptions import GatewayTimeout, HTTPException, ServiceUnavailable

RETRY_AFTER = 5  # seconds; a restart takes one or two, and who comes back sooner finds the pool as full as it was
CANCELLED = "57014"  # the SQLSTATE of a statement that ran into its timeout
# What PostgreSQL or the driver says, and what helps.
MENDS = (
    ("password|authentication|role .* does not exist|pg_hba", "See that user and password are right, an @ as %40"),
    ("database .* does not exist", "Create it, or name another one"),
    ("resolve|translate host name", "See that its host is right"),
    ("timeout|timed out|no answer|No route|unreachable", "See that it runs, and that no firewall is in between"),
    ("refused|closed the connection|No such file|starting up|shutting down", "See that it runs, at this host and port"),
    ("too many|connection slots|no more connections", "Give it more connections, or a pooler; ask: flask preflight"),
    ("unable to open database file", "See that its folder is there, and that we may write to it"),
    ("invalid|does not support SSL", "Mend its URL"),
)


def as_answer(error: BaseException) -> HTTPException | None:
    """The answer to a request that the database did not serve; None if the fault is ours: a wrong statement, say.

    503 with `Retry-After` where it is away, full or in each other's way, so that a client or a proxy can act on it. 504
    where it took too long: the same again would take as long. SQLite names a missing table like a missing database, so
    its errors are all ours.
    """
    if isinstance(error, TimeoutError):  # no connection became free
        return ServiceUnavailable(retry_after=RETRY_AFTER)
    if not isinstance(error, DBAPIError) or not hasattr(error.orig, "sqlstate"):
        return None
    if getattr(error.orig, "sqlstate", None) == CANCELLED:
        return GatewayTimeout()
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return ServiceUnavailable(retry_after=RETRY_AFTER)
    return None


def explain(error: BaseException, url: URL) -> str:
    """One line that says what is wrong, where, and what helps; empty if `error` is better read with its traceback.

    Args:
        error: what a command ended with.
        url: of the database it spoke to. Its password is not told.
    """
    if not isinstance(error, DBAPIError):
        return ""
    reason = str(error.orig).partition("\n")[0].rpartition("failed: ")[2].removeprefix("connection is bad: ")
    reason = re.sub("^[A-Z]+: +", "", reason).strip()  # how bad it is
    if url.password:
        reason = reason.replace(url.password, "***")
    place = f"the database {url.database}" + (f" at {url.host}:{url.port or 5432}" if url.host else "")
    if error.statement is None or error.connection_invalidated:
        mend = next((mend for pattern, mend in MENDS if re.search(pattern, reason)), "See that its URL is right")
        return f"Cannot use {place}: {reason}. {mend}."
    return ""
