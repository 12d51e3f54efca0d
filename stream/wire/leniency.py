"""Decodes events whose form is unusual but has only one meaning, and gives hints for those that cannot be decoded.

Three forms are accepted: an integer as an id, of which the digits are taken; `null` in place of a field that may be
left out; and a number such as 1795773410121.0 as a time, of which the integer is taken. This code runs only after the
strict decoder has refused a record, so it does not slow down good records.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

__all__ = ["framing_hint", "key_hint", "time_hint", "unambiguous"]

_IDS = ("user", "item")
_OPTIONAL = ("weight", "event")
_EXACT = 2**53  # a float below it is the integer that was meant
_decode = msgspec.json.Decoder().decode


def unambiguous(value: bytes) -> dict[str, Any] | None:
    """The fields of a JSON object in the forms that the strict decoder takes; None if it is no object.

    >>> unambiguous(b'{"user": 7, "item": "tea", "timestamp": 1795773410121.0, "weight": null}')
    {'user': '7', 'item': 'tea', 'timestamp': 1795773410121}
    """
    try:
        found = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    fields = {name: value for name, value in found.items() if not (name in _OPTIONAL and value is None)}
    for name in _IDS:
        number = _whole(fields.get(name))
        if number is not None:
            fields[name] = str(number)
    number = _whole(fields.get("timestamp"))
    if number is not None:
        fields["timestamp"] = number
    return fields


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if abs(value) < _EXACT and value.is_integer() else None
    return value if isinstance(value, int) else None


def framing_hint(value: bytes) -> str:
    """A hint about bytes that are not JSON; "" for bytes of no known format."""
    if len(value) > 5 and value[0] == 0:
        schema = int.from_bytes(value[1:5], "big")
        return (
            f"; it begins like a record of Schema Registry (id {schema}): send plain JSON, with a serializer that "
            "adds no magic byte"
        )
    if value[:4] == b"Obj\x01":
        return "; it is an Avro file: send plain JSON"
    if value.lstrip()[:1] in (b"'", b"<") or value.lstrip()[:2] == b"{'":
        return "; names and texts of JSON stand in double quotes"
    return ""


def key_hint(key: bytes, user: str) -> str:
    """A hint about a key that is another form of the user's id; "" if it is no such form."""
    text = key.decode(errors="replace")
    if text == json.dumps(user) or text == json.dumps(user, ensure_ascii=False):
        return "; it has the quotes of JSON: send the id itself, with a string serializer"
    if key[:1] == b"\0" and key[5:].strip(b'"').endswith(user.encode()):
        return "; it begins like a record of Schema Registry: send the id itself, with a string serializer"
    if len(key) in (4, 8) and user.isascii() and user.isdecimal() and int.from_bytes(key, "big") == int(user):
        return "; it is a number in binary: send its digits, with a string serializer"
    if text.startswith("{"):
        return "; it is JSON: send the id itself, with a string serializer"
    if text.strip() == user.strip():
        return "; they differ in white space"
    return ""


def time_hint(timestamp: int, earliest_ms: int, latest_ms: int) -> str:
    """A hint about a time that cannot be in milliseconds; "" if it is no plausible time in another unit either."""
    for unit, milliseconds, mend in (
        ("seconds", timestamp * 1000, "multiply it by 1,000"),
        ("microseconds", timestamp // 1000, "divide it by 1,000"),
        ("nanoseconds", timestamp // 1_000_000, "divide it by 1,000,000"),
    ):
        if earliest_ms <= milliseconds <= latest_ms:
            return f"; it looks like {unit}: {mend}"
    return ""
