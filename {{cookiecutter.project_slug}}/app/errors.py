"""Every error that the application answers with is a problem document (RFC 9457), and never a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NotRequired

from flask import Flask, Response
from typing_extensions import TypedDict  # before Python 3.12 pydantic reads no other
from werkzeug.exceptions import HTTPException, InternalServerError, UnprocessableEntity

from app.database.errors import as_answer
from app.observability.logs import request_id, trace_id


class FieldError(TypedDict):
    """What is wrong with one value: `pointer` is a JSON pointer (RFC 6901) into the body or the query."""

    pointer: str
    detail: str


class Problem(TypedDict):
    """What went wrong (RFC 9457); `request_id` is the one in the log, `trace_id` the one in the traces."""

    type: str
    title: str
    status: int
    detail: str | None
    request_id: str
    trace_id: NotRequired[str]
    errors: NotRequired[list[FieldError]]


class Invalid(UnprocessableEntity):
    """422 with a line for each wrong value. Raise it, or let `app.errors` make it from a pydantic error."""

    description = "Some values are not valid."

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__()
        self.errors = list(errors)


def init_app(app: Flask) -> None:
    """Answer every error with a problem. Unhandled ones are logged with their traceback and answered with 500.

    So are those of the database, except that clients learn whether another try may help.
    """
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_error_handler(HTTPException, problem)


def problem(error: HTTPException) -> Response | HTTPException:
    """The problem document of an HTTP error; its other headers (`Allow`, `Retry-After`) are kept."""
    if isinstance(error, InternalServerError) and error.original_exception is not None:
        error = as_answer(error.original_exception) or error
    if error.code is None or error.code < 400 or error.response is not None:
        return error  # a redirect, or abort(response)
    body: Problem = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code,
        "detail": error.description if error.code < 500 else "Something went wrong on our side.",
        "request_id": request_id.get(),
    }
    if trace_id.get():
        body["trace_id"] = trace_id.get()
    if isinstance(error, Invalid):
        body["errors"] = error.errors
    response = Response(json.dumps(body), error.code, content_type="application/problem+json")
    response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    response.headers["Cache-Control"] = "no-store"
    return response
