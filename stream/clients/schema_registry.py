"""Decodes Avro and Protobuf values with the schemas of a Schema Registry. Each value names its schema by an id:

    byte 0        0
    bytes 1..4    id of the schema, big-endian
    Protobuf      then which message of the schema's file: a count and as many places, zigzag varints; 0 for the first
    the rest      the value

Each schema is fetched once, by confluent-kafka's client. A registry that does not answer, or refuses the credentials,
raises `RegistryUnavailable`: the values may be good, and should be decoded later. A value that cannot be decoded,
whatever the registry answers, raises `Undecodable`. This module needs the extra `registry`.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import importlib.util
import io
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = [
    "RegistryConfig",
    "RegistryUnavailable",
    "SchemaForm",
    "SchemaRegistry",
    "Undecodable",
    "UnknownSchema",
    "missing_extra",
    "open_registry",
]

SchemaForm = Literal["avro", "protobuf"]

_TIMEOUT_SECONDS = 5.0  # of one question; an updater that waits asks again between its polls
_UNKNOWN_SECONDS = 30.0  # time for which an unknown id is not asked for again
_MOST_UNKNOWN = 10_000
_NOT_FOUND = (40401, 40402, 40403)  # subject, version, schema: error codes of the registry itself
_MOST_NESTED = 32
_TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF"}
_BUILT_IN = re.compile(r"(?:google/(?:protobuf|type)|confluent(?:/type)?)/[a-z_]+\.proto")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RegistryUnavailable(RuntimeError):
    """The registry does not answer, or not as a registry does. The values that need it may be good."""


class UnknownSchema(ValueError):
    """The registry says that there is no such schema."""


class Undecodable(ValueError):
    """A value that does not fit its schema, or names none; or a schema that cannot be used."""


@dataclass(frozen=True)
class RegistryConfig:
    url: str
    user: str = ""
    password_file: str = ""
    ca_file: str = ""

    def client_settings(self) -> dict[str, Any]:
        """Settings of confluent-kafka's client. Raises `RegistryUnavailable` when the password cannot be read."""
        settings: dict[str, Any] = {"url": self.url, "timeout": _TIMEOUT_SECONDS, "max.retries": 0}
        if self.user:
            try:
                password = Path(self.password_file).read_text().strip() if self.password_file else ""
            except OSError as error:
                raise RegistryUnavailable(f"registry_password_file {self.password_file}: {error.strerror}") from None
            settings["basic.auth.user.info"] = f"{self.user}:{password}"
        if self.ca_file:
            settings["ssl.ca.location"] = self.ca_file
        return settings


class _Reader(Protocol):
    def __call__(self, payload: memoryview) -> Any: ...


class SchemaRegistry:
    """Readers of values, by the ids of their schemas. One thread may use it."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._client: Any = None
        self._readers: dict[tuple[SchemaForm, int], _Reader] = {}
        self._unknown: dict[int, float] = {}  # ids that the registry does not know, and when to ask again
        self._clock = time.monotonic

    def decode(self, form: SchemaForm, value: bytes) -> Any:
        """The decoded value. Raises `RegistryUnavailable`, `UnknownSchema` and `Undecodable`."""
        if len(value) < 5 or value[0] != 0:
            raise Undecodable("it does not begin as values of a Schema Registry do: a zero byte and the id of a schema")
        number = int.from_bytes(value[1:5], "big")
        reader = self._readers.get((form, number))
        if reader is None:
            reader = self._readers[form, number] = self._prepared(form, number)
        try:
            return reader(memoryview(value)[5:])
        except Undecodable:
            raise
        except Exception as error:  # noqa: BLE001 - the libraries raise anything at bytes that do not fit
            raise Undecodable(f"schema {number}: {type(error).__name__}: {str(error)[:200]}") from None

    def answers(self) -> None:
        """Raises `RegistryUnavailable` unless the registry answers as a Schema Registry does."""
        try:
            self._ask(partial(_schema, number=1), "schema 1")
        except UnknownSchema:
            return

    def _prepared(self, form: SchemaForm, number: int) -> _Reader:
        if self._clock() < self._unknown.get(number, 0):
            raise UnknownSchema(f"schema {number} is not in the registry")
        fmt = "serialized" if form == "protobuf" else None
        try:
            schema = self._ask(lambda client: client.get_schema(number, None, fmt), f"schema {number}")
        except UnknownSchema:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[number] = self._clock() + _UNKNOWN_SECONDS
            raise
        found = schema.schema_type or "AVRO"
        if found != _TYPES[form]:
            raise Undecodable(f"schema {number} is {found}, not {_TYPES[form]}")
        named = self._references(schema, fmt, {}, 0)
        try:
            return _avro_reader(schema, named) if form == "avro" else _protobuf_reader(number, schema, named)
        except Undecodable:
            raise
        except Exception as error:  # noqa: BLE001 - a schema that the library cannot read
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise Undecodable(f"schema {number} cannot be read: {why}") from None

    def _references(self, schema: Any, fmt: str | None, found: dict[str, Any], depth: int) -> dict[str, Any]:
        """The schemas that a schema refers to, by name; a schema that another one needs comes before that one."""
        if depth > _MOST_NESTED:
            raise Undecodable("references of schemas go in circles")
        for reference in schema.references or ():
            if reference.name in found or _BUILT_IN.fullmatch(reference.name or ""):
                continue
            subject, version = reference.subject, reference.version
            asked = partial(_version, subject=subject, version=version, fmt=fmt)
            registered = self._ask(asked, f"version {version} of {subject}")
            self._references(registered.schema, fmt, found, depth + 1)
            found[reference.name] = registered.schema
        return found

    def _ask(self, question: Callable[[Any], Any], what: str) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return question(self._connected())
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in _NOT_FOUND:
                raise UnknownSchema(f"{what} is not in the registry: {error.error_message}") from None
            said = f"HTTP {error.http_status_code}, {str(error.error_message)[:200]}"
            raise RegistryUnavailable(f"{self._config.url} does not give {what}: {said}") from None
        except RegistryUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the network, TLS or a proxy's page of HTML ends in
            why = f"{type(error).__name__}: {str(error)[:200]}"
            raise RegistryUnavailable(f"{self._config.url} does not give {what}: {why}") from None

    def _connected(self) -> Any:
        if self._client is None:
            from confluent_kafka.schema_registry import SchemaRegistryClient

            self._client = SchemaRegistryClient(self._config.client_settings())
        return self._client


def missing_extra() -> str:
    """The module that is not installed; empty when all are."""
    needed = "confluent_kafka", "fastavro", "google.protobuf", "authlib"
    return next((name for name in needed if not _is_installed(name)), "")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _schema(client: Any, number: int) -> Any:
    return client.get_schema(number)


def _version(client: Any, subject: str, version: int, fmt: str | None) -> Any:
    return client.get_version(subject, version, True, fmt)


@lru_cache
def open_registry(config: RegistryConfig) -> SchemaRegistry:
    """The registry of this configuration: one object per process."""
    return SchemaRegistry(config)


# -- Avro --------------------------------------------------------------------------------------------------------------


def _avro_reader(schema: Any, named: Mapping[str, Any]) -> _Reader:
    from fastavro import parse_schema, schemaless_reader

    known: dict[str, Any] = {}
    for referred in named.values():
        parse_schema(json.loads(referred.schema_str), named_schemas=known)
    parsed = parse_schema(json.loads(schema.schema_str), named_schemas=known)

    def read(payload: memoryview) -> Any:
        stream = io.BytesIO(payload)
        found = schemaless_reader(stream, parsed, None)
        _nothing_left(len(payload) - stream.tell())
        return found

    return read


def _nothing_left(count: int) -> None:
    if count:
        raise Undecodable(f"{count} bytes are left behind the value")


# -- Protobuf ----------------------------------------------------------------------------------------------------------


def _protobuf_reader(number: int, schema: Any, named: Mapping[str, Any]) -> _Reader:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    pool, added = DescriptorPool(), set[str]()

    def add(file: Any) -> None:
        for name in file.dependency:
            if name not in added and _BUILT_IN.fullmatch(name):
                add(FileDescriptorProto.FromString(_built_in(name)))
        if file.name not in added:
            added.add(file.name)
            pool.AddSerializedFile(file.SerializeToString())

    def described(name: str, text: str) -> Any:
        try:
            file = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
        except binascii.Error:
            raise Undecodable(
                f"the registry does not serialize schema {number}: it must know format=serialized"
            ) from None
        file.name = name
        return file

    for name, referred in named.items():
        add(described(name, referred.schema_str))
    whole = described(f"schema-{number}.proto", schema.schema_str)
    add(whole)

    @lru_cache(maxsize=64)
    def message_class(places: tuple[int, ...]) -> Any:
        path, inside = [whole.package] if whole.package else [], whole.message_type
        for place in places:
            if not 0 <= place < len(inside):
                raise Undecodable(f"schema {number} has no message {places}")
            path.append(inside[place].name)
            inside = inside[place].nested_type
        return GetMessageClass(pool.FindMessageTypeByName(".".join(path)))

    def read(payload: memoryview) -> Any:
        places, start = _message_places(payload)
        return _as_dict(message_class(places).FromString(bytes(payload[start:])), 0)

    return read


def _built_in(name: str) -> bytes:
    """The descriptor of a file that registries do not store, because they expect every client to have it."""
    module = name.removesuffix(".proto").replace("/", ".") + "_pb2"
    if module.startswith("confluent."):
        module = "confluent_kafka.schema_registry." + module
    try:
        content: bytes = importlib.import_module(module).DESCRIPTOR.serialized_pb
    except ImportError:
        raise Undecodable(f"{name} is not known here") from None
    return content


def _message_places(payload: memoryview) -> tuple[tuple[int, ...], int]:
    """(Which message of the file, where its bytes begin)."""
    count, at = _varint(payload, 0)
    if not 0 <= count <= _MOST_NESTED:
        raise Undecodable(f"a message that is nested {count} times")
    if count == 0:
        return (0,), at
    places = []
    for _ in range(count):
        place, at = _varint(payload, at)
        places.append(place)
    return tuple(places), at


def _varint(payload: memoryview, at: int) -> tuple[int, int]:
    found = 0
    for nth in range(10):
        if at >= len(payload):
            break
        byte = payload[at]
        at += 1
        found |= (byte & 0x7F) << (7 * nth)
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
    raise Undecodable("it does not say which message it is")


def _as_dict(message: Any, depth: int) -> Any:
    """Fields that are set, by name. In proto3 a field without `optional` that is 0 or empty is not set."""
    if depth > _MOST_NESTED:
        raise Undecodable(f"messages are nested more than {_MOST_NESTED} times")
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    return {field.name: _shown(field, value, depth) for field, value in message.ListFields()}


def _shown(field: Any, value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        of = field.message_type.fields_by_name["value"]
        return {str(key): _shown(of, one, depth) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_shown(field, one, depth) for one in value]
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return _as_dict(value, depth + 1) if field.message_type is not None else value
