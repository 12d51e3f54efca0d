"""What may be listed now, and to whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.items import ItemIndex
from stream.wire.catalogue import Catalogue, CatalogueConfig
from stream.wire.items import ItemRecord, decode_item
from stream.wire.records import Rejected

NOW = 1_700_000_000_000
INDEX = ItemIndex("abcd")


def test_an_item_is_listed_unless_its_record_says_otherwise() -> None:
    catalogue = Catalogue()
    assert not catalogue.restricts
    gone = catalogue.put({"b": ItemRecord("b", available=False), "c": ItemRecord("c")}, NOW)
    assert gone == {"b"}
    assert catalogue.allowed(INDEX, NOW).tolist() == [True, False, True, True]
    assert catalogue.put({"b": None}, NOW) == set()
    assert catalogue.allowed(INDEX, NOW).all()


def test_with_require_only_known_items_are_listed() -> None:
    catalogue = Catalogue(CatalogueConfig(require=True))
    catalogue.put({"b": ItemRecord("b"), "c": ItemRecord("c", available=False)}, NOW)
    assert catalogue.allowed(INDEX, NOW).tolist() == [False, True, False, False]
    assert catalogue.put({"b": None}, NOW) == {"b"}


def test_until_needs_no_second_message() -> None:
    catalogue = Catalogue()
    catalogue.put({"a": ItemRecord("a", from_ms=NOW + 10, until_ms=NOW + 20)}, NOW)
    found = []
    for at in (0, 10, 19, 20):
        ended = catalogue.turned(NOW + at)
        found.append((catalogue.listable("a", NOW + at), catalogue.allowed(INDEX, NOW + at).tolist()[0], ended))
    assert found == [(False, False, set()), (True, True, set()), (True, True, set()), (False, False, {"a"})]


def test_an_item_is_hidden_from_the_users_it_names() -> None:
    catalogue = Catalogue()
    assert catalogue.put({"a": ItemRecord("a", hide_from=("ann",))}, NOW) == {"a"}
    assert set(catalogue.hidden_from(b"ann")) == {"a"}
    assert set(catalogue.hidden_from(b"bob")) == set()
    catalogue.put({"a": ItemRecord("a")}, NOW)
    assert set(catalogue.hidden_from(b"ann")) == set()


records = st.dictionaries(
    st.sampled_from("abcdef"),
    st.none() | st.builds(lambda up, at: (up, at), st.booleans(), st.none() | st.integers(NOW - 5, NOW + 5)),
)


@given(st.lists(records, max_size=5), st.booleans())
def test_the_columns_equal_what_is_said_of_each_item(changes: list[dict], require: bool) -> None:
    catalogue = Catalogue(CatalogueConfig(require))
    said: dict[str, ItemRecord] = {}
    for change in changes:
        made = {
            item: None if told is None else ItemRecord(item, available=told[0], until_ms=told[1])
            for item, told in change.items()
        }
        catalogue.put(made, NOW)
        said = {item: record for item, record in (said | made).items() if record is not None}
    expected = [said[item].listable(NOW) if item in said else not require for item in INDEX.ids]
    np.testing.assert_array_equal(catalogue.allowed(INDEX, NOW), expected)


def test_a_record_is_read_strictly_and_its_extras_are_ignored() -> None:
    value = b'{"item": "tea", "until": 5, "categories": ["drinks"], "labels": {"leaf": "green"}, "price": 3}'
    item, record = decode_item(b"tea", value)
    assert (item, record) == ("tea", ItemRecord("tea", until_ms=5, categories=("drinks",), labels={"leaf": "green"}))
    assert decode_item(b"tea", None) == ("tea", None)
    assert record is not None
    assert decode_item(b"tea", record.encode()) == (item, record)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (b"", b"{}", "key is empty"),
        (b"tea", b'{"item": "cup"}', "is not the item"),
        (b"tea", b'{"item": "tea", "available": "no"}', "bool"),
        (b"tea", b'{"item": "tea", "from": 5, "until": 5}', "not before until"),
        (b"tea", b"{", "decode"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(key: bytes, value: bytes, why: str) -> None:
    with pytest.raises(Rejected, match=why):
        decode_item(key, value)
