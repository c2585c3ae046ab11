"""What a client may send, and what it gets. Each field has an example, which the API's document shows."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.validation import Time, Whole

# No database stores the NUL character in text, and an Integer column ends at 2**31 - 1.
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$", examples=["Bolt"])]
Quantity = Annotated[int, Field(ge=0, le=2**31 - 1, examples=[3]), Whole]
# The id that a page begins after, as 16 digits of base 16: what fits the pattern fits the column.
Cursor = Annotated[str, Field(pattern="^([0-7][0-9a-f]{15})?$", examples=["0000000000000000"])]


class Body(BaseModel):
    """A JSON body: no unknown fields, and no conversion of "5" to 5."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ItemCreate(Body):
    """A new item."""

    name: Name
    quantity: Quantity = 0


class ItemUpdate(Body):
    """Only the fields that are sent are changed."""

    # What is made here is never stored. A plain default would stand in the document, and be a lie.
    name: Name = Field(default_factory=str)
    quantity: Quantity = Field(default_factory=int)


class Page(BaseModel):
    """Which items a list shows."""

    # Not strict: in a query numbers arrive as text.
    limit: int = Field(20, ge=1, le=100, description="How many at most.")
    cursor: Cursor = Field("", description="`next_cursor` of the page before; empty for the first page.")


class ItemShown(BaseModel):
    """An item."""

    id: int = Field(examples=[1])
    name: Name
    quantity: Quantity
    version: int = Field(description="Grows with each change.", examples=[1])
    created_at: Time
    updated_at: Time


class ItemSummary(BaseModel):
    """All items together."""

    items: int = Field(description="How many there are.", examples=[2])
    quantity: int = Field(description="The sum of their quantities.", examples=[8])


class ItemPage(BaseModel):
    """Some items, in the order of their creation."""

    items: list[ItemShown]
    next_cursor: Cursor | None = Field(description="For the next page; null on the last one.")
