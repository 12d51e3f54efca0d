"""The fields of config classes as settings: name, type, default and meaning, each read from the class itself.

The meaning of a field is the string below it; its unit is part of its name. A field that holds another config class is
a table of settings, unless `shared` names the section from which all processes take it.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
import sys
import textwrap
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from stream.cli.settings_file import Name

__all__ = [
    "Setting",
    "as_text",
    "as_toml",
    "default_of",
    "dotted",
    "expected",
    "from_text",
    "from_value",
    "meanings",
    "nested_config",
    "settings_of",
    "type_hints",
]


_BARE_KEY = re.compile("[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Setting:
    """One field of a config class that a file, the environment or an option may set."""

    name: Name
    kind: Any  # type of its value
    default: Any
    meaning: str
    secret: bool = False
    variables: tuple[str, ...] = ()  # of the environment; the first one that is set is used
    absent: bool = False  # its table is not used unless one of its settings is given
    computed: bool = False  # the default depends on the machine


def dotted(name: Name) -> str:
    """A name as TOML writes it.

    >>> dotted(("events", "cart.add", "strength"))
    'events."cart.add".strength'
    """
    return ".".join(part if _BARE_KEY.fullmatch(part) else as_toml(part) for part in name)


def settings_of(kind: type, above: Name, shared: Mapping[str, str], base: Any = None) -> Iterator[Setting]:
    """The settings of a config class and of the classes inside it. If `base`, an instance, is given, the defaults are
    its values.

    `shared` names the classes, by `__name__`, that have their own sections; their fields are left out.
    """
    hints, meant = type_hints(kind, shared), meanings(kind)
    for field in fields(kind):
        if not field.init:
            continue
        name, hint = (*above, field.name), hints[field.name]
        default = default_of(field) if base is None else getattr(base, field.name)
        inner = nested_config(hint)
        if inner is None:
            variable = field.metadata.get("variable")
            variables = (variable,) if variable else ()
            meaning, computed = meant.get(field.name, ""), field.default_factory is not MISSING
            yield Setting(name, hint, default, meaning, not field.repr, variables, computed=computed)
        elif inner.__name__ not in shared:
            inside = settings_of(inner, name, shared, default)
            yield from inside if default is not None else (replace(setting, absent=True) for setting in inside)


def type_hints(kind: type, shared: Mapping[str, str]) -> dict[str, Any]:
    """The fields' types. A shared class may be imported for the type checker only, to avoid its import time."""
    return _type_hints(kind, tuple(shared))


@cache
def _type_hints(kind: type, shared: tuple[str, ...]) -> dict[str, Any]:
    known = vars(sys.modules[kind.__module__])
    return get_type_hints(kind, localns={name: _placeholder(name) for name in shared if name not in known})


@cache
def _placeholder(name: str) -> type:
    return dataclass(type(name, (), {}))


def default_of(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def nested_config(hint: Any) -> type | None:
    """The config class that a field of this type holds, or may hold."""
    found = [inner for inner in (hint, *_alternatives(hint)) if is_dataclass(inner)]
    return found[0] if found else None  # type: ignore[return-value]  # is_dataclass also fits instances


@cache
def meanings(kind: type) -> dict[str, str]:
    """The strings below the fields of a config class, which say what they mean (attribute docstrings, PEP 257).

    >>> meanings(Setting)
    {}
    """
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not is_dataclass(owner):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, below in zip(tree.body, tree.body[1:], strict=False):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
    return found


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()


def _plain(hint: Any) -> Any:
    """The type `hint` without None."""
    left = [inner for inner in _alternatives(hint) if inner is not type(None)]
    return left[0] if len(left) == 1 else hint


def from_value(value: Any, kind: Any) -> Any:
    """A value of a TOML file, converted to a field's type. Raises ValueError, which says what was expected."""
    try:
        found = msgspec.convert(value, kind, dec_hook=_hook)
    except (msgspec.ValidationError, TypeError):
        raise ValueError(f"expected {expected(kind)}, got {value!r}") from None
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError(f"expected {expected(kind)}, got {value!r}")
    return found


def from_text(text: str, kind: Any) -> Any:
    """As `from_value`, for a text from the environment or the command line, where quotes are not needed.

    >>> from_text("3", float), from_text("3", str), from_text("no", bool), from_text("1, 2", tuple[int, ...])
    (3.0, '3', False, (1, 2))
    """
    plain = _plain(kind)
    if plain is bool:
        if text.lower() not in _TRUTH:
            raise ValueError(f"expected {expected(kind)}, got {text!r}")
        return _TRUTH[text.lower()]
    if plain in (int, float):
        try:
            return from_value(plain(text), kind)
        except ValueError:
            raise ValueError(f"expected {expected(kind)}, got {text!r}") from None
    if int in _alternatives(kind) and text.isdecimal():
        return int(text)
    if plain in (str, Path) or get_origin(plain) is Literal or str in _alternatives(kind):
        return from_value(text, kind)
    if get_origin(plain) is tuple and not text.lstrip().startswith("["):
        try:
            return tuple(from_text(part.strip(), get_args(plain)[0]) for part in text.split(",") if part.strip())
        except ValueError:
            raise ValueError(f"expected {expected(kind)}, got {text!r}") from None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise ValueError(f"expected {expected(kind)}, got {text!r}") from None
    return from_value(value, kind)


_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def as_text(value: Any) -> str:
    """A value as a text that `from_text` reads back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | dict):
        return as_toml(value)
    return str(value)


def as_toml(value: Any) -> str:
    """A value as TOML writes it.

    >>> as_toml("a"), as_toml((1, 2)), as_toml(True), as_toml({"x": 1})
    ('"a"', '[1, 2]', 'true', '{"x" = 1}')
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(str(key))} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return msgspec.json.encode(str(value)).decode()  # a JSON string is a TOML string


def expected(kind: Any) -> str:
    """A description of the values of this type.

    >>> expected(int | None), expected(Literal["strict", "off"]), expected(tuple[int, ...])
    ('a whole number', 'strict or off', 'a list of whole numbers')
    """
    plain = _plain(kind)
    if get_origin(plain) is Literal:
        *most, last = map(str, get_args(plain))
        return f"{', '.join(most)} or {last}" if most else last
    if get_origin(plain) in (tuple, list):
        return f"a list of {expected(get_args(plain)[0]).removeprefix('a ')}s"
    if get_origin(plain) in (dict, Mapping):
        return "a table"
    return _WORDS.get(plain, "a text or a whole number" if int in _alternatives(kind) else "a text")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}


def _hook(kind: Any, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value.strip() and "\0" not in value:
        return Path(value)
    raise TypeError(f"{value!r} is no {kind}")
