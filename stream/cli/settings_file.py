"""A settings file in TOML, read with the line number of every value, for error messages."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FileValue", "Name", "SettingsFileError", "read_settings_file"]

Name = tuple[str, ...]  # of a setting: ("updater", "limits", "ahead_ms")


class SettingsFileError(ValueError):
    """The file cannot be read as a settings file; the message names the file and the line."""


class FileValue(NamedTuple):
    value: Any  # a text, number, truth value or list; a table only when it is empty
    line: int  # from 1


def read_settings_file(path: Path) -> dict[Name, FileValue]:
    """Every value of the file by its full name, without tables. Raises `SettingsFileError`.

    A table without values is kept, because its name alone may have a meaning: `[events.view]`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        tomllib.loads(text)  # the whole file first, because this refuses names that are defined twice
    except OSError as error:
        raise SettingsFileError(f"{path}: {error.strerror}: name a settings file that can be read") from None
    except UnicodeDecodeError as error:
        raise SettingsFileError(f"{path}: {error.reason} at byte {error.start}: a settings file is UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(f"{path}: {error}: https://toml.io shows the format") from None
    values: dict[Name, FileValue] = {}
    table: Name = ()
    for line, statement, content in _statements(text):
        is_header = statement.startswith("[")
        if statement.startswith("[["):
            raise SettingsFileError(f"{path}:{line}: write [name], not [[name]]: settings have no lists of tables")
        for name, value in _taken_apart(content):
            if is_header:
                table = name
            values[name if is_header else (*table, *name)] = FileValue(value, line)
    parents = {name[:length] for name in values for length in range(1, len(name))}
    return {name: found for name, found in values.items() if found.value != {} or name not in parents}


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(first line, text, content) of each table header and each assignment.

    Lines are added to a statement until it is valid TOML by itself: a list or a text may take several lines.
    """
    first, statement = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            first = number
        statement += line + "\n"
        try:
            content = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if content:
            yield first, statement.lstrip(), content
        statement = ""


def _taken_apart(table: dict[str, Any], above: Name = ()) -> Iterator[tuple[Name, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _taken_apart(value, (*above, key))
        else:
            yield (*above, key), value
