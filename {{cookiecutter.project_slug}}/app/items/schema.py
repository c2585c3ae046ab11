"""What a client may send."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# No database stores the NUL character in text, and an Integer column ends at 2**31 - 1.
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Quantity = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Body(BaseModel):
    """A JSON body: no unknown fields, and no conversion of "5" to 5."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ItemCreate(Body):
    name: Name
    quantity: Quantity = 0


class ItemUpdate(Body):
    """Only the fields that were sent are changed; the defaults here are never stored."""

    name: Name = "unchanged"
    quantity: Quantity = 0


class Page(BaseModel):
    """The query of a list. Numbers arrive as text here, so conversion is on."""

    limit: int = Field(20, ge=1, le=100)
    cursor: str = Field("", max_length=100)
