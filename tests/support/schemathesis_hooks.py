"""What schemathesis is told beyond the document: it makes no header with a quote, and knows no request but its own."""

from __future__ import annotations

import hashlib
from typing import Any

import schemathesis
from hypothesis import strategies

TAGS = "entity-tags"  # the format that a test gives to headers that take tags
schemathesis.openapi.format(TAGS, strategies.sampled_from(["*", '"1"', '"1", "2"', '"", "!#~"']))


@schemathesis.hook
def before_call(_context: object, case: Any, **_: object) -> None:
    """Give each body an Idempotency-Key of its own, as valid or not as what was thought out.

    Two bodies with one key are refused, which no document can say.
    """
    key = (case.headers or {}).get("Idempotency-Key")
    if key:
        suffix = hashlib.sha256(repr((case.body, case.query)).encode()).hexdigest()[:16]
        case.headers["Idempotency-Key"] = f"{key[:-16] if len(key) > 239 else key}{suffix}"
