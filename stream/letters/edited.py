"""Letters in a file of JSON lines, for a person or a program to edit.

A line has the letter's name, why it was refused, and its key and value: a value that is a JSON object is written as an
object, any other as text, and bytes that are not text as {"base64": ...}. When letters are sent again, the name, the
key and the value are read; a letter whose line was removed from the file is not sent.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from stream.letters.mending import Mended
from stream.letters.reading import Letter, LetterError

__all__ = ["read_edited", "save_letters"]

_BYTES = "base64"


def save_letters(file: Path, found: Iterable[Letter]) -> int:
    """Write letters to a new file; returns how many. Raises `LetterError`."""
    try:
        with file.open("xb") as out:
            count = 0
            for letter in found:
                line = {
                    "letter": letter.name,
                    "reason": letter.reason,
                    "detail": letter.detail,
                    "key": _shown(letter.key, objects=False),
                    "value": _shown(letter.value, objects=True),
                }
                out.write(msgspec.json.encode(line) + b"\n")
                count += 1
    except FileExistsError:
        raise LetterError(f"{file} is there already: name another file") from None
    except OSError as error:
        raise LetterError(f"{file}: {error.strerror}") from None
    return count


def read_edited(file: Path) -> dict[str, Mended]:
    """The records to send, by the names of the letters. Raises `LetterError` with the line that cannot be read."""
    found: dict[str, Mended] = {}
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{file}:{number}"
                fields = _object(line, where)
                name = fields.get("letter")
                if not isinstance(name, str):
                    raise LetterError(f'{where}: there is no "letter", by which the saved file names it')
                if name in found:
                    raise LetterError(f"{where}: letter {name} stands in the file twice")
                found[name] = Mended(_bytes(fields.get("key"), where), _bytes(fields.get("value"), where))
    except OSError as error:
        raise LetterError(f"{file}: {error.strerror}") from None
    if not found:
        raise LetterError(f"{file}: no letters in it")
    return found


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LetterError(f"{where}: {error}") from None
    if not isinstance(fields, dict):
        raise LetterError(f"{where}: a line is a JSON object")
    return fields


def _shown(content: bytes | None, objects: bool) -> Any:
    if content is None:
        return None
    if objects and content.lstrip()[:1] == b"{":
        try:
            return {**msgspec.json.decode(content)} if _is_same(content) else content.decode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {_BYTES: base64.b64encode(content).decode()}


def _is_same(content: bytes) -> bool:
    """Whether an object stays the same, except for white space, when it is decoded and encoded again. An object that
    has a field twice, or a number that is too long, does not."""
    fields = msgspec.json.decode(content)
    return fields != {_BYTES: fields.get(_BYTES)} and msgspec.json.encode(fields) == b"".join(content.split())


def _bytes(content: Any, where: str) -> bytes | None:
    if content is None:
        return None
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, dict) and list(content) == [_BYTES]:
        try:
            return base64.b64decode(content[_BYTES], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise LetterError(f"{where}: {_BYTES} holds no base64") from None
    return msgspec.json.encode(content)
