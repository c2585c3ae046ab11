"""What a client sends and gets: a view names its models once, and they read, write and document it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from inspect import iscoroutinefunction
from typing import Annotated, Any, TypeVar

from flask import Response, abort, current_app, request
from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError, WithJsonSchema

from app import preconditions
from app.clock import format_time
from app.errors import Invalid

T = TypeVar("T", bound=BaseModel)
# For an integer of a strict body, last in its Annotated[]: 3.0 is one too, to JSON Schema and so to our document.
Whole = BeforeValidator(lambda raw: int(raw) if isinstance(raw, float) and raw.is_integer() else raw)
# A time as the API shows it.
Time = Annotated[
    datetime,
    PlainSerializer(format_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00.000Z"]}),
]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """`@Operation(body=ItemCreate, answer=ItemShown, status=201)` above a view, below its route.

    The view is called with `body` and `query` as it names them here, and returns what `answer` is read from, or that
    and a dictionary of headers. A response is passed on as it is, and so is everything where no `answer` is named.
    app/openapi.py documents what stands here, the errors of `read_body` and `read_query`, and 404 where the path has
    parameters.

    Attributes:
        body: the model of the JSON body.
        query: the model of the query string.
        answer: the model of the JSON that a client gets. The document shows the same, and nothing else is sent.
        status: the status of that answer.
        versioned: what the view returns has a `version`, which becomes the `ETag`; a GET from who has it gets 304.
        headers: of the request, as OpenAPI describes parameters.
        errors: statuses of the view's own problems, like 409; one that answers 412 takes `If-Match`.
    """

    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    versioned: bool = False
    headers: tuple[dict[str, Any], ...] = ()
    errors: tuple[int, ...] = ()

    def __call__(self, view: Callable[..., Any]) -> Callable[..., Any]:
        is_async = iscoroutinefunction(view)

        @wraps(view)
        def call(**values: Any) -> Any:
            if self.query is not None:
                values["query"] = read_query(self.query)
            if self.body is not None:
                values["body"] = read_body(self.body)
            found = (current_app.ensure_sync(view) if is_async else view)(**values)
            if self.answer is None or isinstance(found, Response):
                return found
            found, headers = found if isinstance(found, tuple) else (found, {})
            if self.versioned:
                headers["ETag"] = preconditions.tag(found.version)
                if request.method in ("GET", "HEAD") and preconditions.is_known(found.version):
                    return Response(status=304, headers=headers)
            shown = self.answer.model_validate(found, from_attributes=True).model_dump_json()
            return Response(shown, self.status, headers, mimetype="application/json")

        call.__dict__["operation"] = self  # a decorator outside this one that uses wraps() keeps it
        return call


def read_body(model: type[T]) -> T:
    """The JSON body of this request as a `model`.

    Raises:
        HTTPException: 415 it does not say that it is JSON, 400 it is not, 413 it is too large, 422 the values are
            not valid.
    """
    if not request.is_json:
        abort(415, "Send JSON, with Content-Type: application/json.")
    try:
        return model.model_validate_json(request.get_data(cache=False))
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            abort(400, f"The body is not JSON: {error.errors()[0]['ctx']['error']}.")
        raise invalid(error) from None


def read_query(model: type[T]) -> T:
    """The query string of this request as a `model`; of a name given twice the first counts.

    Raises:
        HTTPException: 422, the values are not valid.
    """
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Invalid:
    """Pydantic's findings as JSON pointers (RFC 6901) and sentences."""
    return Invalid(
        {
            "pointer": "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in found["loc"]),
            "detail": found["msg"],
        }
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    )
