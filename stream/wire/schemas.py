"""JSON Schemas of the records that other programs read and write: `python -m stream.wire.schemas` writes docs/schemas.

They are made from the types that decode and encode the records, so they agree with the code. Readers must ignore fields
that they do not know: a later release may add fields, but removes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stream.wire.item_lists import ItemList
from stream.wire.items import ItemRecord
from stream.wire.records import Announcement, Interaction, Recommendation

__all__ = ["PUBLIC", "schema", "write"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FOLDER = Path(__file__).parents[2] / "docs" / "schemas"

# Topic, its type, and what a null value means.
PUBLIC: Mapping[str, tuple[type[msgspec.Struct], str]] = {
    "interactions": (Interaction, "the user is to be forgotten"),
    "items": (ItemRecord, "nothing is said of the item any more"),
    "recommendations": (Recommendation, "the user was forgotten"),
    "item-lists": (ItemList, "there is no such list any more"),
    "models": (Announcement, "the slot is empty"),
}


def schema(topic: str) -> dict[str, Any]:
    """The JSON Schema of the values on one of the public topics."""
    kind, null = PUBLIC[topic]
    found = msgspec.json.schema(kind)
    name = found.pop("$ref").rpartition("/")[2]
    parts = {part: _described(part_schema) for part, part_schema in found["$defs"].items()}
    whole = parts.pop(name)
    named = {"$schema": _DIALECT, "title": topic, **whole}
    named["description"] = f"A value on the topic `{topic}`. A null value means: {null}."
    return named | ({"$defs": parts} if parts else {})


def _described(part: dict[str, Any]) -> dict[str, Any]:
    """The schema without docstrings, which are meant for readers of the code, and without titles."""
    return {key: value for key, value in part.items() if key not in ("title", "description")}


def write(folder: Path = _FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for topic in PUBLIC:
        (folder / f"{topic}.json").write_text(json.dumps(schema(topic), indent=2) + "\n")


if __name__ == "__main__":
    write()
