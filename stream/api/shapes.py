"""What the API takes and gives, as the OpenAPI document describes it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "EventIn",
    "Forgotten",
    "HistoryOut",
    "HistoryQuery",
    "ItemListOut",
    "ItemListQuery",
    "ListOut",
    "ListQuery",
    "Problem",
    "ReceiptsOut",
    "TrendingQuery",
    "problems",
]

Id = Annotated[str, Field(min_length=1, max_length=512)]


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    title: str
    status: int
    detail: str


class ReasonOut(BaseModel):
    item: str = Field(description="An item that the user has met.")
    amount: float = Field(description="By how much the score would be lower without it.")


class ItemOut(BaseModel):
    item: str
    score: float = Field(description="Compares inside one list only.")
    because: Sequence[ReasonOut] = Field((), description="With `explain`, where the list was made with reasons.")


class PilotOut(BaseModel):
    name: str
    variant: str = Field(description="`control` for the lists that everybody else gets.")
    stage: int


class ListOut(BaseModel):
    user: str
    known: bool = Field(description="False: no list of this user is known, and the items are what is trending.")
    items: list[ItemOut] = Field(description="Best first.")
    model: str = Field(description="Version that ranked them; empty for popularity.")
    variant: str
    as_of: int = Field(description="Event time of the newest interaction it knows, milliseconds; 0 for none.")
    reason: str = Field(description="What it answers: an event, a new model, or popularity for an unknown user.")
    published: int = Field(description="Milliseconds since 1970 UTC.")
    age_ms: int = Field(description="Time since it was published.")
    pilot: PilotOut | None = Field(None, description="Which variant of a running pilot it is; absent without one.")


class ListQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int | None = Field(None, ge=1, le=1000, description="Most items to return; all of the list when left out.")
    exclude: list[Id] = Field([], max_length=1000, description="Items to leave out; repeat for several.")
    as_of: int | None = Field(
        None,
        ge=0,
        le=2**62,
        description="Wait for a list that knows this event time, `as_of` of a receipt; 503 when there is none in time.",
    )
    surface: Literal["", "default"] = Field("", description="Which of a user's lists. There is one so far.")
    explain: int = Field(
        0, ge=0, le=20, description="Most reasons of each item, where the scorer gives some (`scorer.lists.explain`)."
    )


class ItemListOut(BaseModel):
    list: str = Field(description="Its name in the topic `item-lists`.")
    items: Sequence[ItemOut] = Field(description="Best first.")
    model: str = Field(description="Version that ranked them; empty where none did.")
    as_of: int = Field(description="Event time of the newest interaction it knows, milliseconds; 0 for none.")
    published: int = Field(description="Milliseconds since 1970 UTC.")
    age_ms: int = Field(description="Time since it was published.")


class ItemListQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int | None = Field(None, ge=1, le=1000, description="Most items to return; all of the list when left out.")
    exclude: list[Id] = Field([], max_length=1000, description="Items to leave out; repeat for several.")


class TrendingQuery(ItemListQuery):
    category: str = Field("", max_length=200, description="Only items of this category.")


class InteractionOut(BaseModel):
    time: int = Field(description="Event time, milliseconds since 1970 UTC.")
    strength: float
    event: str = Field(description="What kind of interaction it was, as the event named it.")


class EntryOut(BaseModel):
    item: str
    interactions: list[InteractionOut] = Field(description="The newest with this item, newest first.")


class HistoryOut(BaseModel):
    user: str
    items: list[EntryOut] = Field(description="By their last interaction, newest first.")
    forgotten: int = Field(description="Interactions at or before this time were erased; 0: none were.")


class HistoryQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int | None = Field(None, ge=1, le=10_000, description="Most entries to return; all when left out.")


class EventIn(BaseModel):
    """One interaction. Other fields are kept and passed on."""

    model_config = ConfigDict(extra="allow")

    user: Id
    item: Id
    timestamp: int = Field(0, description="When it happened, milliseconds since 1970 UTC; now when left out.")
    weight: float = Field(1.0, ge=0)
    event: str = Field("", description="What kind of interaction it was.")


class ReceiptOut(BaseModel):
    """Where an event was written, or why it was refused."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    as_of: int | None = Field(None, description="Ask for a list with this `as_of` to be sure that it knows the event.")
    refused: str | None = Field(None, description="decode, schema, timestamp or oversize: the event cannot be used.")
    failed: str | None = Field(None, description="Kafka did not take it in time: send it again.")
    detail: str | None = None


class ReceiptsOut(BaseModel):
    accepted: int
    refused: int
    failed: int
    receipts: list[ReceiptOut] = Field(description="One for each event, in order.")


class Forgotten(BaseModel):
    """The wish to be forgotten, as it was written to the topic. Erasing follows within moments."""

    topic: str
    partition: int
    offset: int


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For `responses` of a route: these status codes carry a `Problem`."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {code: {"description": HTTPStatus(code).phrase, "content": content} for code in codes}
