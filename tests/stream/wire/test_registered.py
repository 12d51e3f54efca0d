"""Avro and Protobuf, written by confluent-kafka's own serializers, are the events that they say.

The registry is a fake that speaks the protocol over HTTP (`tests/support/fake_registry.py`).
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from hypothesis import given
from hypothesis import strategies as st

from stream.clients.schema_registry import RegistryUnavailable, missing_extra, open_registry
from stream.cluster.doctor import examine_registry
from stream.wire.mapping import InputMapping
from stream.wire.records import Interaction, Limits, Rejected
from tests.stream.wire.test_mapping import Record
from tests.support.fake_registry import FakeRegistry, fake_registry

NOW = 1_764_000_000_000
VALUE = SerializationContext("interactions", MessageField.VALUE)
FLAT = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "user", "type": "string"},
        {"name": "item", "type": "long"},
        {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "weight", "type": ["null", "double"]},
        {"name": "event", "type": {"type": "enum", "name": "Kind", "symbols": ["view", "buy"]}},
    ],
}
STRING, INT64, MESSAGE, ENUM, DOUBLE = 9, 3, 11, 14, 1


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    open_registry.cache_clear()
    with fake_registry() as registry:
        yield registry


def avro(registry: FakeRegistry, schema: dict, value: dict) -> bytes:
    return AvroSerializer(SchemaRegistryClient({"url": registry.url}), json.dumps(schema))(value, VALUE)


def file_of(name: str, package: str, message: str, fields: list[tuple], *imports: str) -> FileDescriptorProto:
    """`fields` are (name, type, full name of its message or enum, label)."""
    file = FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=imports)
    whole = file.message_type.add(name=message)
    for number, (field, kind, of, repeated) in enumerate(fields, 1):
        added = whole.field.add(name=field, number=number, type=kind, label=3 if repeated else 1, json_name=field)
        if of:
            added.type_name = of
    return file


def messages() -> tuple[Any, Any]:
    """Classes of an order in one file, and of a line of it in another that it imports."""
    pool = DescriptorPool()
    pool.AddSerializedFile(TIMESTAMP.serialized_pb)
    line = file_of("shop/line.proto", "shop", "Line", [("sku", STRING, "", False), ("count", INT64, "", False)])
    fields = [
        ("customer", INT64, "", False),
        ("lines", MESSAGE, ".shop.Line", True),
        ("at", MESSAGE, ".google.protobuf.Timestamp", False),
        ("kind", ENUM, ".shop.Order.Kind", False),
        ("weight", DOUBLE, "", False),
    ]
    order = file_of("shop/order.proto", "shop", "Order", fields, "shop/line.proto", "google/protobuf/timestamp.proto")
    kinds = order.message_type[0].enum_type.add(name="Kind")
    for number, name in enumerate(("NONE", "BUY")):
        kinds.value.add(name=name, number=number)
    for file in (line, order):
        pool.AddSerializedFile(file.SerializeToString())
    return tuple(GetMessageClass(pool.FindMessageTypeByName(f"shop.{name}")) for name in ("Order", "Line"))


def protobuf(registry: FakeRegistry, message: Any) -> bytes:
    return ProtobufSerializer(type(message), SchemaRegistryClient({"url": registry.url}))(message, VALUE)


def read(mapping: InputMapping, value: bytes, key: bytes = b"ann") -> Interaction:
    assert mapping.translator is not None
    _, found = mapping.translator.decode(Record(value, key), Limits())
    assert isinstance(found, Interaction)
    return found


def refused(mapping: InputMapping, value: bytes) -> str:
    with pytest.raises(Rejected) as error:
        read(mapping, value)
    return str(error.value)


AT = datetime.fromtimestamp(NOW / 1000, UTC)


def test_avro_with_our_names_needs_no_path(registry: FakeRegistry) -> None:
    mapping = InputMapping(form="avro", registry=registry.url)
    event = {"user": "ann", "item": 7, "timestamp": AT, "weight": 0.5, "event": "buy"}
    assert read(mapping, avro(registry, FLAT, event)) == Interaction("ann", "7", NOW, 0.5, "buy")
    assert read(mapping, avro(registry, FLAT, event | {"weight": None})) == Interaction("ann", "7", NOW, 1.0, "buy")


def test_a_schema_is_fetched_once(registry: FakeRegistry) -> None:
    mapping = InputMapping(form="avro", registry=registry.url)
    value = avro(registry, FLAT, {"user": "ann", "item": 7, "timestamp": AT, "weight": 0.5, "event": "buy"})
    registry.asked.clear()
    for _ in range(3):
        read(mapping, value)
    assert len(registry.asked) == 1


def test_avro_nested_with_references_is_read_by_paths(registry: FakeRegistry) -> None:
    uuid_type = {"type": "string", "logicalType": "uuid"}
    who = {"type": "record", "name": "shop.Who", "fields": [{"name": "id", "type": uuid_type}]}
    client = SchemaRegistryClient({"url": registry.url})
    order = {
        "type": "record",
        "name": "shop.Order",
        "fields": [{"name": "who", "type": "shop.Who"}, {"name": "skus", "type": {"type": "array", "items": "string"}},
                   {"name": "at", "type": "long"}],
    }  # fmt: skip
    client.register_schema("who", Schema(json.dumps(who), "AVRO"))
    schema = Schema(json.dumps(order), "AVRO", [SchemaReference("shop.Who", "who", 1)])
    uuid = UUID(int=5)
    value = AvroSerializer(client, schema)({"who": {"id": uuid}, "skus": ["tea", "cup"], "at": NOW // 1000}, VALUE)
    mapping = InputMapping(
        form="avro", registry=registry.url, user="who.id", item="skus.1", timestamp="at", time_unit="s"
    )
    assert read(mapping, value, str(uuid).encode()) == Interaction(str(uuid), "cup", NOW)


def test_protobuf_is_read_by_paths(registry: FakeRegistry) -> None:
    order_class, line_class = messages()
    order = order_class(customer=42, lines=[line_class(sku="tea"), line_class(sku="cup", count=2)], kind=1)
    order.at.FromMilliseconds(NOW)
    mapping = InputMapping(
        form="protobuf",
        registry=registry.url,
        user="customer",
        item="lines.1.sku",
        timestamp="at",
        event="kind",
        kinds=("BUY=buy",),
    )
    value = protobuf(registry, order)
    assert read(mapping, value, b"42") == Interaction("42", "cup", NOW, 1.0, "buy")
    order.weight = 0.5
    assert read(mapping, protobuf(registry, order), b"42").weight == 0.5
    del order.lines[:]
    assert "lines.1.sku: there is no 'lines'" in refused(mapping, protobuf(registry, order))


def test_a_second_message_of_a_file_is_found(registry: FakeRegistry) -> None:
    pool = DescriptorPool()
    file = file_of("two.proto", "", "First", [("x", INT64, "", False)])
    outer = file.message_type.add(name="Second")
    inner = outer.nested_type.add(name="Event")
    for number, (name, kind) in enumerate((("user", STRING), ("item", STRING), ("timestamp", INT64)), 1):
        inner.field.add(name=name, number=number, type=kind, label=1, json_name=name)
    pool.AddSerializedFile(file.SerializeToString())
    event = GetMessageClass(pool.FindMessageTypeByName("Second.Event"))(user="ann", item="tea", timestamp=NOW)
    mapping = InputMapping(form="protobuf", registry=registry.url)
    value = protobuf(registry, event)
    assert read(mapping, value) == Interaction("ann", "tea", NOW)
    for places in (b"\x04\x02\x06", b"\x80\x01", b"\x04\x02", b"\x01", b""):
        assert refused(mapping, value[:5] + places).startswith("decode: ")


def test_bad_bytes_are_refused_by_name(registry: FakeRegistry) -> None:
    mapping = InputMapping(form="avro", registry=registry.url)
    event = {"user": "ann", "item": 7, "timestamp": AT, "weight": 0.5, "event": "buy"}
    value = avro(registry, FLAT, event)
    assert "zero byte and the id of a schema" in refused(mapping, b'{"user": "ann"}')
    assert "zero byte" in refused(mapping, b"\x00\x00")
    assert refused(mapping, value[:-3]).startswith("decode: schema 1: ")
    assert "2 bytes are left behind the value" in refused(mapping, value + b"xx")
    assert "schema 1 is AVRO, not PROTOBUF" in refused(InputMapping(form="protobuf", registry=registry.url), value)
    registry.schemas[9] = {"schema": '{"type": "nothing"}'}
    assert "schema 9 cannot be read: " in refused(mapping, b"\x00\x00\x00\x00\x09x")


def test_an_id_that_is_not_there_is_refused_and_not_asked_for_with_every_event(registry: FakeRegistry) -> None:
    mapping = InputMapping(form="avro", registry=registry.url)
    for _ in range(3):
        assert refused(mapping, b"\x00\x00\x00\x00\x63x").startswith("schema: schema 99 is not in the registry")
    assert len(registry.asked) == 1


@pytest.mark.parametrize(
    "fails",
    [
        (503, b'{"error_code": 50301, "message": "leader is away"}'),
        (404, b"<html>no such page</html>"),
        (200, b"<html>welcome</html>"),
        (401, b'{"error_code": 401, "message": "Unauthorized"}'),
    ],
)
def test_a_registry_that_answers_otherwise_makes_no_dead_letters(
    registry: FakeRegistry, fails: tuple[int, bytes]
) -> None:
    mapping = InputMapping(form="avro", registry=registry.url)
    value = avro(registry, FLAT, {"user": "ann", "item": 7, "timestamp": AT, "weight": 0.5, "event": "buy"})
    registry.fails = fails
    with pytest.raises(RegistryUnavailable, match=registry.url):
        read(mapping, value)
    registry.fails = None
    assert read(mapping, value).item == "7"


def test_credentials_come_from_a_file_and_stay_out_of_errors(tmp_path: Path) -> None:
    open_registry.cache_clear()
    password = tmp_path / "password"
    with fake_registry(user="key", password="s3cret") as registry:
        registry.schemas[1] = {"schema": json.dumps(FLAT)}
        mapping = InputMapping(
            form="avro", registry=registry.url, registry_user="key", registry_password_file=str(password)
        )
        with pytest.raises(RegistryUnavailable, match="No such file"):
            read(mapping, b"\x00\x00\x00\x00\x01x")
        password.write_text("wrong\n")
        with pytest.raises(RegistryUnavailable, match="401") as error:
            read(mapping, b"\x00\x00\x00\x00\x01x")
        assert "wrong" not in str(error.value)
        open_registry.cache_clear()  # a process that begins again
        password.write_text("s3cret\n")
        assert refused(mapping, b"\x00\x00\x00\x00\x01x").startswith("decode: schema 1: ")


@given(st.binary(max_size=60))
def test_nothing_but_a_refusal_comes_of_any_bytes(content: bytes) -> None:
    with fake_registry() as registry:
        open_registry.cache_clear()
        registry.schemas[1] = {"schema": json.dumps(FLAT)}
        mapping = InputMapping(form="avro", registry=registry.url)
        assert mapping.translator is not None
        for value in (content, b"\x00\x00\x00\x00\x01" + content):
            try:
                mapping.translator.decode(Record(value), Limits())
            except Rejected:
                continue


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"form": "avro"}, "needs the URL of a registry"),
        ({"form": "json", "registry": "http://r"}, "a registry is for the forms avro and protobuf"),
        ({"form": "avro", "registry": "http://r", "registry_user": "a"}, "needs registry_password_file"),
        ({"form": "avro", "registry": "http://a:b@r"}, "would be logged"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        InputMapping(**{"user": "u", "item": "i", "timestamp": "t"} | settings)


def test_without_the_extra_the_form_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_extra() == ""
    monkeypatch.setattr("stream.clients.schema_registry._is_installed", lambda name: name != "fastavro")
    with pytest.raises(ValueError, match=r"fastavro: pip install 'freshet\[registry\]'"):
        InputMapping(form="avro", registry="http://r")


def test_the_doctor_asks_the_registry(registry: FakeRegistry) -> None:
    mapping = InputMapping(form="avro", registry=registry.url)
    assert [finding.verdict for finding in examine_registry(mapping)] == ["fits"]
    registry.fails = (503, b"{}")
    (finding,) = examine_registry(mapping)
    assert (finding.verdict, finding.subject) == ("does not fit", "schema registry")
    assert list(examine_registry(InputMapping())) == []
