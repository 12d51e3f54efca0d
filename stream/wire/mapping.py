"""Events in other formats: CloudEvents, Debezium's envelopes, any JSON object, and records with a schema of a Schema
Registry. The section `[input]` of the settings says where the fields of an event are found.

A record is translated into the event that its producer could have sent in Freshet's own format, and that event is
decoded and checked like every other (`decode_interaction`). Nothing is guessed: when there is nothing at a needed path,
the record is refused, and the reason names the path.

Two kinds of records in `interactions` are always in Freshet's own format; the header `freshet` marks them:

    plain     an event from the HTTP API, a replay or a simulation
    forget    a null value that asks to forget the user in the key

A null value without this header asks to forget a user only where keys are users. Elsewhere it may mean that a row was
deleted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from stream.clients.schema_registry import (
    RegistryConfig,
    SchemaForm,
    Undecodable,
    UnknownSchema,
    missing_extra,
    open_registry,
)
from stream.wire.leniency import framing_hint
from stream.wire.records import Forget, InputRecord, Interaction, Limits, Rejected, decode_interaction

__all__ = ["FORGET", "OWN_HEADER", "PLAIN", "InputMapping", "Translator", "own_headers"]

OWN_HEADER, PLAIN, FORGET = "freshet", b"plain", b"forget"

Form = Literal["plain", "json", "cloudevents", "debezium", "avro", "protobuf"]
TimeUnit = Literal["", "s", "ms", "us", "ns", "rfc3339"]

_PER_MS: Mapping[str, tuple[int, int]] = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000), "ns": (1, 1_000_000)}
_PATHS = ("user", "item", "timestamp", "weight", "event")
_NEEDED = ("user", "item", "timestamp")
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "plain": {},
    "json": {},
    "cloudevents": {"user": "data.user", "item": "data.item", "timestamp": "time", "event": "type"},
    "debezium": {"user": "after.user_id", "item": "after.item_id", "timestamp": "source.ts_ms"},
    "avro": {name: name for name in _PATHS},
    "protobuf": {name: name for name in _PATHS},
}
_UNITS: Mapping[str, str] = {"cloudevents": "rfc3339"}  # of all other forms the unit is ms
_REGISTERED = ("avro", "protobuf")
_EXACT = 2**53  # a float below it is the integer that was meant
_LARGEST_MS = 2**60
_EPOCH, _MS = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_MOST_SHOWN = 8  # names of fields in an error

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class InputMapping:
    form: Form = "plain"
    """How events look: plain (docs/records.md), json (any object, with the paths below), cloudevents (structured and
    binary), debezium (with and without schema), avro or protobuf (by the schemas of a registry)."""
    user: str = ""
    """Path of the user's id, such as payload.user.id; names with dots in them as a JSON pointer, /payload/user.id.
    Empty, like the next four: where the form usually has it."""
    item: str = ""
    """Path of the item's id."""
    timestamp: str = ""
    """Path of the time of the event."""
    weight: str = ""
    """Path of the weight; without one, or where there is none, it is 1."""
    event: str = ""
    """Path of the kind of the event; without one, or where there is none, it has none."""
    time_unit: TimeUnit = ""
    """What the time is: s, ms, us, ns since 1970 UTC, or rfc3339, a text with a time zone. Empty: what the form usually
    has."""
    kinds: tuple[str, ...] = ()
    """Kinds by other names: `["com.shop.order=buy", "com.shop.page=view"]`."""
    other_kinds: Literal["keep", "refuse"] = "keep"
    """What happens to kinds that are not among these: they keep their names, or the event is refused."""
    key: Literal["user", "any"] = "user"
    """user: the key of a record is its user's id, or it is refused. any: keys are not looked at, and every event is
    sent on to its user's partition, for which `updater.repartition` must be strict."""
    registry: str = ""
    """URL of the Schema Registry, or several with commas between them, of which one has to answer."""
    registry_user: str = ""
    """User, or API key, at the registry."""
    registry_password_file: str = ""
    """File that holds the password, or secret, and nothing else."""
    registry_ca_file: str = ""
    """Certificates of the authorities that the registry's certificate is checked by; empty: those of the system."""

    def __post_init__(self) -> None:
        given = [name for name in _PATHS if getattr(self, name)]
        if self.form == "plain":
            changed = given + [name for name in ("time_unit", "kinds") if getattr(self, name)]
            if changed or self.key != "user":
                raise ValueError(f"{(changed or ['key'])[0]} says where a mapping finds something: set form, too")
        self._check_registry()
        missing = [name for name in _NEEDED if self.form != "plain" and not self.path(name)]
        if missing:
            raise ValueError(f"form {self.form} needs a path for {', '.join(missing)}")
        for name in given:
            _steps(getattr(self, name))
        for pair in self.kinds:
            if not all(pair.partition("=")[::2]):
                raise ValueError(f"kinds are pairs like com.shop.order=buy, got {pair!r}")

    def _check_registry(self) -> None:
        if self.form not in _REGISTERED:
            if self.registry:
                raise ValueError(f"a registry is for the forms avro and protobuf, form is {self.form}")
            return
        if not self.registry.startswith(("http://", "https://")):
            raise ValueError(f"form {self.form} needs the URL of a registry, got {self.registry!r}")
        if "@" in self.registry:
            raise ValueError("credentials in the URL of a registry would be logged: set registry_user and a file")
        if ":" in self.registry_user or (self.registry_user and not self.registry_password_file):
            raise ValueError("registry_user is a name without colon, and needs registry_password_file")
        if missing := missing_extra():
            raise ValueError(f"form {self.form} needs {missing}: pip install 'freshet[registry]'")

    def path(self, name: str) -> str:
        return getattr(self, name) or _DEFAULTS[self.form].get(name, "")

    @property
    def unit(self) -> str:
        return self.time_unit or _UNITS.get(self.form, "ms")

    @property
    def registry_config(self) -> RegistryConfig:
        return RegistryConfig(self.registry, self.registry_user, self.registry_password_file, self.registry_ca_file)

    @cached_property
    def translator(self) -> Translator | None:
        """None for plain events, which need none."""
        return None if self.form == "plain" else Translator(self)


class _Path(NamedTuple):
    name: str  # as it was set
    steps: tuple[str, ...]


def _steps(path: str) -> tuple[str, ...]:
    """The names on a path. Raises ValueError.

    >>> _steps("payload.user.id"), _steps("/a~1b/c.d")
    (('payload', 'user', 'id'), ('a/b', 'c.d'))
    """
    if path.startswith("/"):
        steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/"))
    else:
        steps = tuple(path.split("."))
    if not all(steps):
        raise ValueError(f"a path is names with dots between them, like payload.user.id, got {path!r}")
    return steps


class Translator:
    """Decodes records of one mapping."""

    def __init__(self, mapping: InputMapping) -> None:
        self._mapping = mapping
        self._open: Callable[[InputRecord], Any] = {
            "json": _open_json,
            "cloudevents": _open_cloud_event,
            "debezium": _open_debezium,
            "avro": self._open_registered,
            "protobuf": self._open_registered,
        }[mapping.form]
        self._paths = {
            name: _Path(mapping.path(name), _steps(mapping.path(name))) for name in _PATHS if mapping.path(name)
        }
        self._kinds = {theirs: ours for theirs, _, ours in (pair.rpartition("=") for pair in mapping.kinds)}

    def decode(self, record: InputRecord, limits: Limits) -> tuple[bytes, Interaction | Forget]:
        """The user, and what the record says. Raises `Rejected`, and `RegistryUnavailable` while the schema registry
        does not answer."""
        own = next((value for name, value in record.headers if name == OWN_HEADER), None)
        key = record.key
        if own is not None or (record.value is None and self._mapping.key == "user"):
            if record.value is None or own == PLAIN:
                return key or b"", decode_interaction(key, record.value, record.timestamp, limits)
            raise Rejected("schema", f"the header {OWN_HEADER} is {own!r}, known are plain and forget")
        if record.value is None:
            raise Rejected(
                "schema",
                "a null value says nothing where keys are not users (Debezium: tombstones.on.delete=false); to forget "
                "somebody, use `freshet user forget`",
            )
        if len(record.value) > limits.record_bytes:
            raise Rejected("oversize", f"{len(record.value)} bytes, at most {limits.record_bytes} are accepted")
        event = self._translate(self._open(record))
        user = event["user"].encode()
        own_key = user if self._mapping.key == "any" else key
        return user, decode_interaction(own_key, _encoded(event), record.timestamp, limits)

    def _open_registered(self, record: InputRecord) -> Any:
        form: SchemaForm = "avro" if self._mapping.form == "avro" else "protobuf"
        try:
            return open_registry(self._mapping.registry_config).decode(form, record.value or b"")
        except UnknownSchema as error:
            raise Rejected("schema", str(error)) from None
        except Undecodable as error:
            raise Rejected("decode", str(error)) from None

    def _translate(self, document: Any) -> dict[str, Any]:
        paths = self._paths
        event: dict[str, Any] = {
            "user": _id(paths["user"], document),
            "item": _id(paths["item"], document),
            "timestamp": _time_ms(paths["timestamp"], document, self._mapping.unit),
        }
        if (weight := self._optional("weight", document)) is not None:
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise _refused(paths["weight"], f"{_shown(weight)} is no number")
            event["weight"] = weight
        if (kind := self._optional("event", document)) is not None:
            if not isinstance(kind, str):
                raise _refused(paths["event"], f"{_shown(kind)} is no text")
            if kind not in self._kinds and self._mapping.other_kinds == "refuse":
                raise _refused(paths["event"], f"the kind {_shown(kind)} is not among those of [input] kinds")
            event["event"] = self._kinds.get(kind, kind)
        return event

    def _optional(self, name: str, document: Any) -> Any:
        path = self._paths.get(name)
        return None if path is None else _find(path, document, needed=False)


def _encoded(event: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(event)
    except OverflowError:
        raise Rejected("schema", f"the weight {event['weight']} does not fit a 32-bit float") from None


# -- envelopes -------------------------------------------------------------------------------------------------------


def _json(value: bytes) -> Any:
    try:
        return _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("decode", str(error) + framing_hint(value)) from None


def _open_json(record: InputRecord) -> Any:
    return _json(record.value or b"")


def _open_cloud_event(record: InputRecord) -> Any:
    """The attributes by name, and `data`, of an event in binary mode (with headers) or in structured mode."""
    headers = {name.lower(): value for name, value in record.headers}
    if "ce_specversion" in headers:
        event: dict[str, Any] = {
            name.removeprefix("ce_"): _text(name, value) for name, value in headers.items() if name.startswith("ce_")
        }
        event["data"] = _json(record.value or b"")
    else:
        event = _json(record.value or b"")
        if not isinstance(event, dict) or "specversion" not in event:
            raise Rejected("schema", "it is no CloudEvent: there is neither a header ce_specversion nor specversion")
        if "data_base64" in event:
            event["data"] = _json(_from_base64(event["data_base64"]))
    if str(event["specversion"]).partition(".")[0] != "1":
        raise Rejected("schema", f"specversion: {_shown(event['specversion'])} is not 1.x")
    return event


def _text(name: str, value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError as error:
        raise Rejected("decode", f"the header {name} is not UTF-8: {error}") from None


def _from_base64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise Rejected("decode", f"data_base64: {_shown(text)} is no base64") from None


def _open_debezium(record: InputRecord) -> Any:
    """The payload, with or without its schema beside it."""
    found = _json(record.value or b"")
    if isinstance(found, dict) and found.keys() == {"schema", "payload"}:
        found = found["payload"]
    if not isinstance(found, dict) or "op" not in found:
        raise Rejected("schema", "op: missing; it is no envelope of Debezium")
    if found["op"] not in ("c", "r", "u"):
        raise Rejected("schema", f"op: {_shown(found['op'])} is not c, r or u, of which a row says what happened")
    return found


# -- fields ----------------------------------------------------------------------------------------------------------


def _find(path: _Path, document: Any, needed: bool = True) -> Any:
    """The value at the path. When there is none: raises `Rejected` if it is `needed`, else returns None."""
    found = document
    for step in path.steps:
        inside = None
        if isinstance(found, dict):
            inside = found.get(step)
        elif isinstance(found, list) and step.isascii() and step.isdecimal() and int(step) < len(found):
            inside = found[int(step)]
        if inside is None:
            if needed:
                raise _refused(path, f"there is no {step!r}{_around(found)}")
            return None
        found = inside
    return found


def _around(found: Any) -> str:
    if not isinstance(found, dict):
        return f" in {_shown(found)}"
    names = sorted(map(str, found))
    more = ", ..." if len(names) > _MOST_SHOWN else ""
    return f", only {', '.join(name[:40] for name in names[:_MOST_SHOWN])}{more}" if names else ", it is empty"


def _id(path: _Path, document: Any) -> str:
    found = _find(path, document)
    if isinstance(found, str):
        return found
    if isinstance(found, UUID):
        return str(found)
    whole = _whole(found)
    if whole is None:
        raise _refused(path, f"{_shown(found)} is no id")
    return str(whole)


def _whole(found: Any) -> int | None:
    if isinstance(found, float):
        return int(found) if abs(found) < _EXACT and found.is_integer() else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _time_ms(path: _Path, document: Any, unit: str) -> int:
    found = _find(path, document)
    if unit == "rfc3339" or isinstance(found, datetime):  # schemas have datetimes
        try:
            moment = found if isinstance(found, datetime) else datetime.fromisoformat(found)
        except (TypeError, ValueError):
            raise _refused(path, f"{_shown(found)} is no time like 2026-11-27T18:00:00Z") from None
        if moment.tzinfo is None:
            raise _refused(path, f"{_shown(found)} has no time zone")
        return (moment - _EPOCH) // _MS
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise _refused(path, f"{_shown(found)} is no number of {unit}")
    factor, divisor = _PER_MS[unit]
    time_ms = found * factor // divisor if isinstance(found, int) else found * factor / divisor
    if not abs(time_ms) < _LARGEST_MS:
        raise _refused(path, f"{_shown(found)} {unit} is no time")
    return round(time_ms)


def _refused(path: _Path, why: str) -> Rejected:
    return Rejected("schema", f"{path.name}: {why}")


def _shown(value: Any) -> str:
    return repr(value)[:80]


def own_headers(kind: bytes) -> list[tuple[str, bytes]]:
    """The header of Freshet's own records."""
    return [(OWN_HEADER, kind)]
