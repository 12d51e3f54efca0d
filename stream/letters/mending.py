"""Corrections of refused records: changes that apply to all of them, or a new value for one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from stream.letters.reading import Letter
from stream.wire.mapping import Translator
from stream.wire.records import Forget, Interaction, Limits, Rejected, decode_interaction

__all__ = ["Changes", "Judge", "Mended", "mend"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_TIME = "timestamp"
_IN_A_MILLISECOND = {"us": 1000, "ns": 1_000_000}


@dataclass(frozen=True)
class Changes:
    """Changes of the fields of a JSON object, in this order."""

    strip_bytes: int = 0  # at the beginning of the value, such as the five bytes of a Schema Registry
    rename: Mapping[str, str] = field(default_factory=dict)  # old -> new; `a.b` is b inside of a
    drop: frozenset[str] = frozenset()
    values: Mapping[str, Any] = field(default_factory=dict)  # set whatever the record has
    defaults: Mapping[str, Any] = field(default_factory=dict)  # set where the record has no value
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    key_from_user: bool = False  # the key becomes the field `user`

    def __bool__(self) -> bool:
        return self != Changes()


@dataclass(frozen=True)
class Mended:
    """The key and the value that are sent."""

    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class Judge:
    """Decodes and checks a record as the updater would."""

    limits: Limits
    now_ms: int
    translator: Translator | None = None  # of events in another format than Freshet's own

    def decode(self, letter: Letter, mended: Mended) -> Interaction | Forget:
        """The event of a corrected letter. Raises `Rejected`."""
        if self.translator is None:
            return decode_interaction(mended.key, mended.value, self.now_ms, self.limits)
        source = (letter.topic, letter.source_partition, letter.source_offset, self.now_ms)
        return self.translator.decode(_Record(*source, mended.key, mended.value, letter.headers), self.limits)[1]


class _Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def mend(letter: Letter, changes: Changes, given: Mended | None, judge: Judge) -> Mended:
    """The record of a letter as it is sent again. `given` has a key and a value that a person or a program edited;
    `changes` do not apply to it. Raises `Rejected` when the updater would refuse it again."""
    if given is None:
        if letter.cut_from:
            raise Rejected(
                "oversize", f"only the first bytes of {letter.cut_from} were kept: give it a value in a file"
            )
        given = _mapped(letter, changes) if changes else Mended(letter.key, letter.value)
    if isinstance(judge.decode(letter, given), Forget) and letter.value is not None:
        raise Rejected("schema", "a null value forgets the user, which the record did not ask for")
    return given


def _mapped(letter: Letter, changes: Changes) -> Mended:
    if letter.value is None:
        return Mended(letter.key, None)
    try:
        fields = _decode(letter.value[changes.strip_bytes :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("decode", str(error)) from None
    if not isinstance(fields, dict):
        raise Rejected("schema", f"the value is no object but {type(fields).__name__}")
    for old, new in changes.rename.items():
        value = _taken(fields, old)
        if value is not None:
            fields[new] = value
    for name in changes.drop:
        fields.pop(name, None)
    fields.update(changes.values)
    for name, value in changes.defaults.items():
        if fields.get(name) is None:
            fields[name] = value
    if _TIME in fields:
        fields[_TIME] = _milliseconds(fields[_TIME], changes.time_unit)
    key = letter.key
    if changes.key_from_user:
        user = fields.get("user")
        key = str(user).encode() if isinstance(user, str | int) and not isinstance(user, bool) else key
    return Mended(key, _encode(fields))


def _taken(fields: dict[str, Any], name: str) -> Any:
    """The value of the field with this name, which is removed. If there is none, the name is a path, and the value
    inside of the objects stays there."""
    if name in fields:
        return fields.pop(name)
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _milliseconds(value: Any, unit: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if unit == "s":
        return round(value * 1000)
    return int(value // _IN_A_MILLISECOND[unit]) if unit in _IN_A_MILLISECOND else value
