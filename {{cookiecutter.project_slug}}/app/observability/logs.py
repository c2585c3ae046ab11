"""One JSON object a line on stdout: of the service, the server and every library, through one handler.

A line is written by `write_line`, whole: no other thread or process of this server writes in the middle of it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import tempfile
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.config import dictConfig
from pathlib import Path
from typing import Any

import orjson
from pythonjsonlogger.core import BaseJsonFormatter, merge_record_extra

from app.clock import format_time

STDOUT = 1
QUIET = ("alembic.runtime.plugins", "botocore", "flask-limiter", "urllib3")  # they tell at INFO what nobody asks
request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")  # empty unless tracing is on

_threads = threading.RLock()  # re-entrant: a signal handler may log while its own thread does
_processes, _path = tempfile.mkstemp()  # a POSIX lock on the file is held by one process at a time
Path(_path).unlink()  # it needs no name, and goes with the last process


def write_line(line: bytes) -> None:
    """Write `line` and its line feed to stdout in one piece, even where the pipe takes only part of it.

    Nothing is raised where stdout is gone: a request does not fail because of its log line.
    """
    rest = line + b"\n"
    with _threads:
        fcntl.lockf(_processes, fcntl.LOCK_EX)
        try:
            while rest:
                try:
                    rest = rest[os.write(STDOUT, rest) :]
                except BlockingIOError:
                    select.select([], [STDOUT], [])
        except OSError:
            pass
        finally:
            fcntl.lockf(_processes, fcntl.LOCK_UN)


def to_json(fields: dict[str, Any]) -> bytes:
    """One line of JSON, whatever the values are."""
    try:
        return orjson.dumps(fields, default=str)
    except TypeError:  # half a surrogate pair, say: the standard library escapes what orjson refuses
        return json.dumps(fields, default=str).encode()


class Formatter(BaseJsonFormatter):
    """The contract's fields in its order, then what a caller gave as `extra`."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["ts"] = format_time(datetime.fromtimestamp(record.created, UTC))
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.message
        log_data["request_id"] = request_id.get() or None
        if trace_id.get():
            log_data["trace_id"] = trace_id.get()
        log_data.update(message_dict)
        merge_record_extra(record, log_data, reserved=self._skip_fields)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        return to_json(log_data).decode()


class Handler(logging.Handler):
    """Format a record and write it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record).encode())
        except Exception:
            self.handleError(record)


def configure(level: str) -> None:
    """Send every log line of this process through the one handler, warnings included."""
    dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": Formatter}},
            "handlers": {"stdout": {"()": Handler, "formatter": "json"}},
            "root": {"level": level, "handlers": ["stdout"]},
            "loggers": {name: {"level": "WARNING"} for name in QUIET},
        }
    )
    logging.captureWarnings(True)
