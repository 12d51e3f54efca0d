"""What others write in their forms is the event that they could have written in ours, or is refused by name."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.updater.config import UpdaterConfig
from stream.updater.merging import decode_batch
from stream.wire.mapping import FORGET, PLAIN, InputMapping, own_headers
from stream.wire.records import Forget, Interaction, Limits, Rejected, decode_interaction

NOW = 1_764_000_000_000
LIMITS = Limits()


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = b"ann"
    headers: Any = ()
    offset: int = 0
    timestamp: int = NOW
    topic: str = "interactions"
    partition: int = 0


JSON = InputMapping(
    form="json", user="payload.after.user_id", item="payload.items.0.sku", timestamp="at", weight="w", event="kind"
)
CLOUD = InputMapping(form="cloudevents", weight="data.weight")
DEBEZIUM = InputMapping(form="debezium", weight="after.weight", event="after.kind", timestamp="after.at")


def decoded(mapping: InputMapping, record: Record) -> tuple[bytes, Interaction | Forget]:
    translator = mapping.translator
    assert translator is not None
    return translator.decode(record, LIMITS)


def refused(mapping: InputMapping, record: Record) -> str:
    with pytest.raises(Rejected) as found:
        decoded(mapping, record)
    return found.value.detail


# -- laws ------------------------------------------------------------------------------------------------------------

ids = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())
events = st.fixed_dictionaries(
    {"user": ids, "item": ids, "timestamp": st.integers(NOW - 10**11, NOW)},
    optional={"weight": st.floats(0, 1e6, width=32), "event": st.text(max_size=10)},
)
Event = dict[str, Any]


def as_json(event: Event) -> tuple[InputMapping, bytes, Any]:
    body: Event = {"payload": {"after": {"user_id": event["user"]}, "items": [{"sku": event["item"]}]}}
    body |= {"at": event["timestamp"], "w": event.get("weight"), "kind": event.get("event"), "other": [None, {}]}
    return JSON, json.dumps(body).encode(), ()


def rfc3339(time_ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat()


def as_structured(event: Event) -> tuple[InputMapping, bytes, Any]:
    data = {name: event[name] for name in ("user", "item", "weight") if name in event}
    body = {"specversion": "1.0", "id": "7", "source": "/shop", "time": rfc3339(event["timestamp"]), "data": data}
    body |= {"type": event["event"]} if "event" in event else {}
    return CLOUD, json.dumps(body).encode(), [("content-type", b"application/cloudevents+json")]


def as_base64(event: Event) -> tuple[InputMapping, bytes, Any]:
    mapping, value, headers = as_structured(event)
    body = json.loads(value)
    body["data_base64"] = base64.b64encode(json.dumps(body.pop("data")).encode()).decode()
    return mapping, json.dumps(body).encode(), headers


def as_binary(event: Event) -> tuple[InputMapping, bytes, Any]:
    body = json.loads(as_structured(event)[1])
    data = body.pop("data")
    return CLOUD, json.dumps(data).encode(), [(f"ce_{name}", value.encode()) for name, value in body.items()]


def as_debezium(event: Event) -> tuple[InputMapping, bytes, Any]:
    after = {"user_id": event["user"], "item_id": event["item"], "at": event["timestamp"]}
    after |= {"weight": event.get("weight"), "kind": event.get("event")}
    payload = {"before": None, "after": after, "op": "c", "source": {"ts_ms": 1}, "ts_ms": 2}
    return DEBEZIUM, json.dumps(payload).encode(), ()


def as_debezium_with_schema(event: Event) -> tuple[InputMapping, bytes, Any]:
    mapping, value, headers = as_debezium(event)
    return mapping, json.dumps({"schema": {"type": "struct"}, "payload": json.loads(value)}).encode(), headers


FORMS = (as_json, as_structured, as_base64, as_binary, as_debezium, as_debezium_with_schema)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@given(event=events)
def test_an_event_in_another_form_is_the_event_in_ours(form: Any, event: Event) -> None:
    mapping, value, headers = form(event)
    key = event["user"].encode()
    expected = decode_interaction(key, json.dumps(event).encode(), NOW, LIMITS)
    assert decoded(mapping, Record(value, key, headers)) == (key, expected)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NAMES = ("user_id", "item_id", "at", "data", "user", "item", "time", "specversion", "op", "after", "w")
leaves = st.sampled_from(NAMES)
documents = st.dictionaries(leaves, values | st.dictionaries(leaves, values, max_size=5), max_size=9)
encoded = documents.map(json.dumps).map(str.encode) | values.map(json.dumps).map(str.encode) | st.binary()
headers = st.lists(st.tuples(st.sampled_from(["ce_specversion", "ce_time", "ce_type", "x", "freshet"]), st.binary()))


@pytest.mark.parametrize("mapping", [JSON, CLOUD, DEBEZIUM], ids=lambda mapping: mapping.form)
@given(value=encoded, headers=headers)
def test_whatever_comes_is_an_event_or_is_refused(mapping: InputMapping, value: bytes, headers: Any) -> None:
    try:
        assert decoded(mapping, Record(value, b"ann", headers))[0] == b"ann"
    except Rejected as error:
        assert error.detail


UNITS = {"s": 1000, "ms": 1, "us": 1 / 1000, "ns": 1 / 1_000_000}


@pytest.mark.parametrize("unit", UNITS)
@given(time_ms=st.integers(NOW - 10**11, NOW), as_float=st.booleans())
def test_times_in_any_unit_are_the_same_millisecond(unit: str, time_ms: int, as_float: bool) -> None:
    mapping = InputMapping(form="json", user="u", item="i", timestamp="t", time_unit=unit)  # type: ignore[arg-type]
    number = {"s": time_ms / 1000, "ms": time_ms, "us": time_ms * 1000, "ns": time_ms * 1_000_000}[unit]
    number = float(number) if as_float and unit != "ns" else number
    value = json.dumps({"u": "ann", "i": "tea", "t": number}).encode()
    assert decoded(mapping, Record(value))[1].timestamp == time_ms


# -- refusals name the path ------------------------------------------------------------------------------------------

GOOD = {"payload": {"after": {"user_id": "ann"}, "items": [{"sku": "tea"}]}, "at": NOW}


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"payload": {"after": {"userId": "ann"}}}, "payload.after.user_id: there is no 'user_id', only userId"),
        ({"payload": {}}, "payload.after.user_id: there is no 'after', it is empty"),
        ({"payload": 7}, "payload.after.user_id: there is no 'after' in 7"),
        ({"payload": {"after": {"user_id": "ann"}, "items": []}}, "payload.items.0.sku: there is no '0' in []"),
        ({"payload": {"after": {"user_id": True}}}, "payload.after.user_id: True is no id"),
        ({"payload": {"after": {"user_id": 1.5}}}, "payload.after.user_id: 1.5 is no id"),
        ({"at": "2026-01-01"}, "at: '2026-01-01' is no number of ms"),
        ({"at": 1e300}, "at: 1e+300 ms is no time"),
        ({"w": "many"}, "w: 'many' is no number"),
        ({"kind": 3}, "kind: 3 is no text"),
    ],
)
def test_a_refusal_names_the_path_and_what_is_there(changed: dict, detail: str) -> None:
    assert refused(JSON, Record(json.dumps(GOOD | changed).encode())) == detail


@pytest.mark.parametrize("time", ["2026-11-27T18:00:00", "yesterday", 7, None])
def test_a_time_without_a_zone_is_no_time(time: Any) -> None:
    body = {"specversion": "1.0", "type": "view", "time": time, "data": {"user": "ann", "item": "tea"}}
    assert refused(CLOUD, Record(json.dumps(body).encode())).startswith("time: ")


@pytest.mark.parametrize(("op", "detail"), [("d", "op: 'd' is not c, r or u"), ("t", "op: 't'"), (None, "op: None")])
def test_an_operation_that_is_no_event_is_refused(op: Any, detail: str) -> None:
    assert refused(DEBEZIUM, Record(json.dumps({"op": op, "after": None}).encode())).startswith(detail)


def test_kinds_by_other_names() -> None:
    kinds = ("com.shop.order=buy", "a=b=view")
    for other, expected in (("com.shop.order", "buy"), ("a=b", "view"), ("else", "else")):
        mapping = InputMapping(form="cloudevents", kinds=kinds)
        _, value, headers = as_structured({"user": "ann", "item": "tea", "timestamp": NOW, "event": other})
        assert decoded(mapping, Record(value, headers=headers))[1].event == expected  # type: ignore[union-attr]
    strict = InputMapping(form="cloudevents", kinds=kinds, other_kinds="refuse")
    assert refused(strict, Record(value, headers=headers)).startswith("type: the kind 'else' is not among those")


# -- keys, and Freshet's own records -----------------------------------------------------------------------------------


def test_a_key_is_the_user_unless_keys_are_not_looked_at() -> None:
    _, value, _ = as_debezium({"user": "ann", "item": "tea", "timestamp": NOW})
    assert "is not the user 'ann'" in refused(DEBEZIUM, Record(value, b'{"id": 3}'))
    any_key = InputMapping(form="debezium", timestamp="after.at", key="any")
    for key in (b'{"id": 3}', None, b"\xff"):
        assert decoded(any_key, Record(value, key))[0] == b"ann"


def test_a_deletion_of_a_row_forgets_nobody_where_keys_are_not_users() -> None:
    any_key = InputMapping(form="debezium", key="any")
    assert "tombstones.on.delete=false" in refused(any_key, Record(None, b"ann"))
    for mapping, record in (
        (DEBEZIUM, Record(None, b"ann")),
        (any_key, Record(None, b"ann", own_headers(FORGET))),
    ):
        assert decoded(mapping, record) == (b"ann", Forget("ann", NOW))


def test_the_apis_own_events_are_taken_in_our_form() -> None:
    value = json.dumps({"user": "ann", "item": "tea", "timestamp": NOW}).encode()
    user, event = decoded(CLOUD, Record(value, headers=own_headers(PLAIN)))
    assert user == b"ann" and event == decode_interaction(b"ann", value, NOW, LIMITS)
    assert "no CloudEvent" in refused(CLOUD, Record(value))
    assert "known are plain and forget" in refused(CLOUD, Record(value, headers=[("freshet", b"x")]))


def test_a_large_record_is_not_read() -> None:
    assert "bytes, at most" in refused(JSON, Record(b"[" * (LIMITS.record_bytes + 1)))


def test_a_batch_keeps_what_it_refuses() -> None:
    good, bad = Record(json.dumps(GOOD).encode()), Record(b"{}", offset=1)
    arrivals, rejected = decode_batch([good, bad], LIMITS, JSON.translator)
    assert arrivals.keys() == {b"ann"} and arrivals[b"ann"][0].source is good
    assert [(record, error.reason) for record, error in rejected] == [(bad, "schema")]


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"user": "a"}, "user says where a mapping finds something: set form, too"),
        ({"key": "any"}, "key says where"),
        ({"form": "json", "user": "a", "item": "b"}, "form json needs a path for timestamp"),
        ({"form": "debezium", "user": "a..b"}, "a path is names with dots"),
        ({"form": "debezium", "user": "/"}, "a path is names with dots"),
        ({"form": "debezium", "kinds": ("buy",)}, "kinds are pairs"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused(settings: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        InputMapping(**settings)


def test_keys_that_are_not_looked_at_need_routing() -> None:
    mapping = InputMapping(form="debezium", key="any")
    with pytest.raises(ValueError, match="set repartition to strict"):
        UpdaterConfig(input=mapping)
    assert UpdaterConfig(input=mapping, repartition="strict").input.translator is mapping.translator
    assert UpdaterConfig().input.translator is None
