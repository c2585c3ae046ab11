"""Reading what a client sent into a pydantic model, and saying what is wrong with it."""

from __future__ import annotations

from typing import TypeVar

from flask import abort, request
from pydantic import BaseModel, ValidationError

from app.errors import Invalid

T = TypeVar("T", bound=BaseModel)


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
