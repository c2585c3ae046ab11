"""`ETag`, `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13): a client changes what it has seen, or nothing.

The tag of a resource is its version, in double quotes: the number that its `version_id_col` counts up at each change.
"""

from __future__ import annotations

import re
from typing import Any

from flask import abort, request
from sqlalchemy.orm.exc import StaleDataError

from app.extensions import db

_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAGS = re.compile(rf"\*|{_TAG}(?:[ \t]*(?:,[ \t]*)+{_TAG})*")
# As the API's document shows them.
IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "schema": {
        "type": "string",
        "pattern": r'^(\*|"[!#-~]*"(, "[!#-~]*")*)$',
        "examples": ['"1"'],
        "description": "The `ETag` of what is to be changed. If it was changed since, it stays as it is: 412.",
    },
}
IF_NONE_MATCH: dict[str, Any] = {
    "name": "If-None-Match",
    "schema": {
        "type": "string",
        "examples": ['"0"'],
        "description": "The `ETag` of what the client has. If it is the newest, the answer is 304 without a body.",
    },
}


def tag(version: int) -> str:
    """The `ETag` of this version. It is a strong one: no two versions look the same."""
    return f'"{version}"'


def is_known(version: int) -> bool:
    """Whether the client has this version already, by its `If-None-Match`; what cannot be read there is ignored."""
    return request.if_none_match.contains_weak(str(version))


def require_match(version: int) -> None:
    """Go on if the client means this version, or any: it sent no `If-Match`, or `*`.

    Raises:
        HTTPException: 412, it means another one; 400, what it sent is no list of tags. Passed over, that would lose
            the change of somebody else, which the client wanted to prevent.
    """
    sent = request.headers.get("If-Match")
    if sent is None:
        return
    if not _TAGS.fullmatch(sent.strip(" \t,")):
        abort(400, 'If-Match takes * or tags in double quotes, like "1".')
    if not request.if_match.contains(str(version)):
        abort(412, "It was changed by somebody else. Read it again, then repeat the request with the new ETag.")


def commit() -> None:
    """Commit a change of what was read in this request.

    Raises:
        HTTPException: somebody else changed it after we read it, and nothing of ours was written: 412 where the
            client named a version, 409 where it did not.
    """
    try:
        db.session.commit()
    except StaleDataError:
        status = 412 if "If-Match" in request.headers else 409
        abort(status, "It was changed by somebody else meanwhile. Read it again, then repeat the request.")
