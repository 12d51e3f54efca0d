"""What a refused record becomes, field by field."""

import json
from dataclasses import replace

import pytest

from stream.letters.mending import Changes, Judge, Mended, mend
from stream.letters.reading import Letter
from stream.wire.mapping import InputMapping
from stream.wire.records import Limits, Rejected

NOW = 1_764_000_000_000
JUDGE = Judge(Limits(), NOW)
GOOD = {"user": "ann", "item": "tea", "timestamp": NOW}


def letter(value: object, key: bytes | None = b"ann", **more: object) -> Letter:
    content = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return Letter(0, 7, NOW, "schema", "why", "interactions", 1, 2, key, content, (), **more)  # type: ignore[arg-type]


def mended(found: Letter, changes: Changes) -> object:
    value = mend(found, changes, None, JUDGE).value
    return None if value is None else json.loads(value)


@pytest.mark.parametrize(
    ("value", "changes", "expected"),
    [
        ({**GOOD, "timestamp": 1764000000}, Changes(time_unit="s"), GOOD),
        ({**GOOD, "timestamp": 1764000000.25}, Changes(time_unit="s"), {**GOOD, "timestamp": NOW + 250}),
        ({**GOOD, "timestamp": NOW * 1000 + 999}, Changes(time_unit="us"), GOOD),
        ({**GOOD, "timestamp": NOW * 1_000_000}, Changes(time_unit="ns"), GOOD),
        (
            {"user": "ann", "timestamp": NOW, "properties": {"product_id": "tea", "n": 1}},
            Changes(rename={"properties.product_id": "item"}, drop=frozenset({"properties"})),
            GOOD,
        ),
        ({"visitor": "ann", "item": "tea", "timestamp": NOW}, Changes(rename={"visitor": "user"}), GOOD),
        ({"a.b": "tea", "user": "ann", "timestamp": NOW}, Changes(rename={"a.b": "item"}), GOOD),
        ({**GOOD, "weight": "5"}, Changes(values={"weight": 5}), {**GOOD, "weight": 5}),
        ({**GOOD, "event": None}, Changes(defaults={"event": "view", "item": "x"}), {**GOOD, "event": "view"}),
        (b"\0\0\0\0\x07" + json.dumps(GOOD).encode(), Changes(strip_bytes=5), GOOD),
        ({**GOOD, "more": [1]}, Changes(), {**GOOD, "more": [1]}),
    ],
)
def test_a_record_becomes_what_the_changes_say(value: object, changes: Changes, expected: object) -> None:
    assert mended(letter(value), changes) == expected


def test_the_key_may_come_from_the_user() -> None:
    sent = mend(letter({**GOOD, "user": 7}, key=None), Changes(key_from_user=True), None, JUDGE)
    assert sent.key == b"7"


def test_a_record_that_fits_by_now_is_sent_as_it_is() -> None:
    early = letter(b'{"timestamp": 1764000400000, "item":"tea",  "user": "ann"}')
    with pytest.raises(Rejected, match="ahead of its arrival"):
        mend(early, Changes(), None, JUDGE)
    assert mend(early, Changes(), None, Judge(Limits(), NOW + 400_000)) == Mended(early.key, early.value)


@pytest.mark.parametrize(
    ("found", "changes", "reason"),
    [
        (letter(b"{broken"), Changes(time_unit="s"), "decode"),
        (letter([1]), Changes(time_unit="s"), "schema"),
        (letter({"user": "ann", "item": "tea"}), Changes(time_unit="s"), "schema"),
        (letter(GOOD, key=b"bob"), Changes(), "schema"),
        (replace(letter(GOOD), cut_from=9_000_000), Changes(), "oversize"),
        (letter({**GOOD, "timestamp": 1764000000}), Changes(time_unit="us"), "timestamp"),
    ],
)
def test_what_would_be_refused_again_is_not_sent(found: Letter, changes: Changes, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        mend(found, changes, None, JUDGE)
    assert refused.value.reason == reason


def test_an_edited_value_never_forgets_a_user_by_accident() -> None:
    with pytest.raises(Rejected, match="forgets the user"):
        mend(letter(GOOD), Changes(), Mended(b"ann", None), JUDGE)
    wish = letter(None, key=b"\xff")
    assert mend(wish, Changes(), Mended(b"ann", None), JUDGE) == Mended(b"ann", None)


def test_records_in_another_form_are_judged_in_that_form() -> None:
    mapping = InputMapping("json", user="who.id", item="what", timestamp="at", time_unit="s")
    judge = Judge(Limits(), NOW, mapping.translator)
    broken = letter({"who": {"id": "ann"}, "article": "tea", "at": NOW // 1000})
    with pytest.raises(Rejected, match="what"):
        mend(broken, Changes(), None, judge)
    sent = mend(broken, Changes(rename={"article": "what"}), None, judge)
    assert json.loads(sent.value or b"") == {"who": {"id": "ann"}, "what": "tea", "at": NOW // 1000}
