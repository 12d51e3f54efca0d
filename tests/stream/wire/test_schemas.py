"""The schemas in docs say what is done, and readers of the last release read what is written today."""

import json
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.wire.item_lists import ItemList
from stream.wire.items import ItemRecord
from stream.wire.records import (
    Announcement,
    InPilot,
    Interaction,
    Reason,
    Recommendation,
    ScoredItem,
    decode_interaction,
)
from stream.wire.records import Limits as InputLimits
from stream.wire.schemas import PUBLIC, schema

FOLDER = Path(__file__).parents[3] / "docs" / "schemas"
NOW = 1_764_000_000_000


# -- the structs of release 0.1.0 ----------------------------------------------------------------------------------


class Interaction010(msgspec.Struct, frozen=True):
    user: str
    item: str
    timestamp: int
    weight: float = 1.0
    event: str = ""


class ScoredItem010(msgspec.Struct, frozen=True):
    item: str
    score: float


class Recommendation010(msgspec.Struct, frozen=True):
    user: str
    items: tuple[ScoredItem010, ...]
    model: str
    variant: str
    as_of: int
    reason: str
    published: int


class Announcement010(msgspec.Struct, frozen=True):
    slot: str
    version: str
    address: str
    sha256: str
    parent: str
    created: int
    data_until: int
    items: int
    metrics: dict[str, float] = {}


OLD = {"interactions": Interaction010, "recommendations": Recommendation010, "models": Announcement010}

numbers, floats = st.integers(0, 2**53), st.floats(allow_nan=False, allow_infinity=False, width=32)
because = st.lists(st.builds(Reason, item=st.text(), amount=floats), max_size=2).map(tuple)
scored = st.builds(ScoredItem, item=st.text(min_size=1), score=floats, because=because)
written = {
    "interactions": st.builds(
        Interaction,
        user=st.text(min_size=1, max_size=20),
        item=st.text(min_size=1, max_size=20),
        timestamp=numbers,
        weight=st.floats(0, 1e6),
        event=st.text(max_size=9),
    ),
    "items": st.builds(
        ItemRecord,
        item=st.text(min_size=1, max_size=20),
        available=st.booleans(),
        from_ms=st.none() | numbers,
        until_ms=st.none() | numbers,
        categories=st.lists(st.text(min_size=1, max_size=9)).map(tuple),
        labels=st.dictionaries(st.text(), st.text()),
        embedding=st.lists(floats).map(tuple),
        hide_from=st.lists(st.text(min_size=1)).map(tuple),
    ),
    "recommendations": st.builds(
        Recommendation,
        user=st.text(),
        items=st.lists(scored).map(tuple),
        model=st.text(),
        variant=st.text(),
        as_of=numbers,
        reason=st.text(),
        published=numbers,
        pilot=st.none() | st.builds(InPilot, name=st.text(), variant=st.text(), stage=numbers),
    ),
    "item-lists": st.builds(
        ItemList, list=st.text(), items=st.lists(scored).map(tuple), model=st.text(), as_of=numbers, published=numbers
    ),
    "models": st.builds(
        Announcement,
        slot=st.sampled_from(["live", "candidate", "previous", "retired"]),
        version=st.text(),
        address=st.text(),
        sha256=st.text(),
        parent=st.text(),
        created=numbers,
        data_until=numbers,
        items=numbers,
        metrics=st.dictionaries(st.text(), floats),
        share=st.floats(0, 1),
    ),
}


@pytest.mark.parametrize("topic", PUBLIC)
def test_the_files_are_those_of_the_types(topic: str) -> None:
    """`python -m stream.wire.schemas` writes them."""
    assert (FOLDER / f"{topic}.json").read_text() == json.dumps(schema(topic), indent=2) + "\n"
    assert {path.stem for path in FOLDER.glob("*.json")} == set(PUBLIC) == set(written)


@pytest.mark.parametrize("topic", PUBLIC)
def test_what_is_written_fits_its_schema(topic: str) -> None:
    validator = jsonschema_rs.validator_for(schema(topic))

    @given(record=written[topic])
    def check(record: msgspec.Struct) -> None:
        value = json.loads(msgspec.json.encode(record))
        validator.validate(value)
        validator.validate(value | {"of a later release": [1]})

    check()


@pytest.mark.parametrize("topic", PUBLIC)
def test_a_record_without_a_needed_field_does_not_fit(topic: str) -> None:
    found = schema(topic)
    validator = jsonschema_rs.validator_for(found)

    @given(record=written[topic], name=st.sampled_from(found["required"]))
    def check(record: msgspec.Struct, name: str) -> None:
        value = json.loads(msgspec.json.encode(record))
        del value[name]
        assert not validator.is_valid(value)

    check()


@pytest.mark.parametrize("topic", OLD)
def test_a_reader_of_the_last_release_reads_todays_records(topic: str) -> None:
    @given(record=written[topic])
    def check(record: msgspec.Struct) -> None:
        old = msgspec.json.decode(msgspec.json.encode(record), type=OLD[topic])
        fields = msgspec.to_builtins(record)
        for item in fields["items"] if topic == "recommendations" else ():
            item.pop("because", None)
        assert msgspec.to_builtins(old) == {name: fields[name] for name in old.__struct_fields__}

    check()


@given(weight=st.floats(0, 1e6), event=st.text(max_size=64))
def test_an_event_of_the_last_release_is_still_one(weight: float, event: str) -> None:
    value = msgspec.json.encode(Interaction010("ann", "tea", NOW, weight, event))
    found = decode_interaction(b"ann", value, NOW, InputLimits())
    assert isinstance(found, Interaction)
    assert (found.user, found.item, found.timestamp, found.event) == ("ann", "tea", NOW, event)
    assert found.weight == pytest.approx(weight, rel=1e-6)
