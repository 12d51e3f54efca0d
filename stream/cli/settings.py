"""The settings of a command: defaults of the config classes, settings file, environment, options; the later one wins.

Every setting keeps its origin, so that an error names the line, the variable or the option to change. The config class
of a section is imported when it is needed: an updater does not import modules that only a trainer needs.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from stream.cli.config_fields import (
    Setting,
    default_of,
    dotted,
    from_text,
    from_value,
    nested_config,
    settings_of,
    type_hints,
)
from stream.cli.sections import SECTIONS, SHARED, Section, found
from stream.cli.settings_file import Name, read_settings_file

__all__ = ["DEFAULT", "Effective", "Settings", "SettingsError"]

T = TypeVar("T")

DEFAULT = "default"


class SettingsError(ValueError):
    """A setting that does not exist or is invalid: one line that says where it was set and what to do."""


class _Given(NamedTuple):
    value: Any
    origin: str
    is_text: bool  # from the environment or the command line, where values have no type


class Effective(NamedTuple):
    """A setting with its value, and the origin of the value."""

    setting: Setting
    value: Any
    origin: str

    @property
    def is_default(self) -> bool:
        return self.origin == DEFAULT


Values = Mapping[Name, Effective]


class Settings:
    """The settings of one call of `freshet`. `overrides` are texts like "updater.history_items=100".

    Raises `SettingsError`, and `SettingsFileError` for a file that is not TOML.
    """

    def __init__(
        self,
        file: Path | None = None,
        environment: Mapping[str, str] | None = None,
        overrides: Sequence[str] = (),
        sections: Mapping[str, Section] | None = None,
        shared: Mapping[str, str] | None = None,
    ) -> None:
        self.file = file
        self.environment = os.environ if environment is None else environment
        self.sections = SECTIONS if sections is None else sections
        self._shared = SHARED if shared is None else shared
        self._in_file = {
            name: _Given(found.value, f"{file}:{found.line}", False)
            for name, found in (read_settings_file(file) if file else {}).items()
        }
        self._commanded = dict(map(_override, overrides))
        for name, given in (self._in_file | self._commanded).items():
            if name[0] not in self.sections:
                hint = _nearest(name[0], list(self.sections))
                raise SettingsError(f"{given.origin}: there is no section [{name[0]}]; {hint}")
        self._read: dict[str, Values] = {}

    def with_options(self, options: Mapping[Name, tuple[str, str]]) -> Settings:
        """These settings with texts from the command line, name -> (text, option), which have precedence."""
        changed = Settings(None, self.environment, (), self.sections, self._shared)
        changed.file, changed._in_file = self.file, self._in_file
        changed._commanded = self._commanded | {name: _Given(*option, True) for name, option in options.items()}
        return changed

    def section(self, name: str) -> Values:
        """All settings of a section by name."""
        if name not in self._read:
            section = self.sections[name]
            here = {name: given for name, given in (self._in_file | self._commanded).items() if name[0] == section.name}
            known = {setting.name: self._effective(setting) for setting in self._schema(section, here)}
            _refuse_unknown(section, here, known)
            _refuse_unknown_variables(section, self.environment, known)
            self._read[name] = known
        return self._read[name]

    def __getitem__(self, path: str) -> Effective:
        name = tuple(path.split("."))
        return self.section(name[0])[name]

    def described(self, section: Section) -> list[Effective]:
        """The settings of a section at their defaults, for a reference; `[name.<name>]` for a table of tables."""
        here: dict[Name, _Given] = {(section.name, "<name>", "<key>"): _Given(None, "", False)} if section.each else {}
        return [Effective(setting, setting.default, DEFAULT) for setting in self._schema(section, here)]

    def is_given(self, path: str) -> bool:
        """Whether the setting is given anywhere; imports no config class."""
        name = tuple(path.split("."))
        return name in self._commanded or name in self._in_file or bool(self.environment.get(_variable(name)))

    def read(self, kind: type[T]) -> T:
        """The config of this class, from its section."""
        section = self._section_of(kind)
        values = self.section(section.name)
        if not section.each:
            return self._build(kind, (section.name,), self._base(section), values)
        tables = dict.fromkeys(name[1] for name in values)
        return cast(Any, kind)(
            {name: self._build(section.table_kind(), (section.name, name), None, values) for name in tables}
        )

    def forwarded(self) -> list[str]:
        """Arguments of `freshet` by which a child process gets these settings; it inherits the environment."""
        arguments = [] if self.file is None else ["--config", str(self.file.absolute())]
        for name, given in self._commanded.items():
            arguments += ["--set", f"{dotted(name)}={given.value}"]
        return arguments

    def _section_of(self, kind: type) -> Section:
        wanted = f"{kind.__module__}:{kind.__qualname__}"
        return next(section for section in self.sections.values() if section.config == wanted)

    def _schema(self, section: Section, here: Mapping[Name, _Given]) -> Iterator[Setting]:
        kind = section.table_kind()
        if section.each:
            for table in dict.fromkeys(name[1] for name in here if len(name) > 1):
                yield from settings_of(kind, (section.name, table), self._shared)
            return
        yield from _extra(section)
        for setting in settings_of(kind, (section.name,), self._shared, self._base(section)):
            if setting.name[-1] in section.left_out:
                continue
            others = section.variables.get(setting.name[-1], ())
            yield replace(setting, variables=(*setting.variables, *others, _variable(setting.name)))

    def _effective(self, setting: Setting) -> Effective:
        given = self._commanded.get(setting.name)
        set_variables = (variable for variable in setting.variables if self.environment.get(variable))
        if given is None and (variable := next(set_variables, None)) is not None:
            given = _Given(self.environment[variable], variable, True)
        if given is None:
            given = self._in_file.get(setting.name)
        if given is not None and setting.secret and given.origin not in setting.variables:
            where = f"{given.origin}: {dotted(setting.name)}"
            raise SettingsError(f"{where} is a secret and does not belong here: give it by {setting.variables[0]}")
        if given is None:
            return Effective(setting, setting.default, DEFAULT)
        try:
            value = (from_text if given.is_text else from_value)(given.value, setting.kind)
        except ValueError as error:
            raise SettingsError(f"{given.origin}: {dotted(setting.name)}: {error}") from None
        return Effective(setting, value, given.origin)

    def _base(self, section: Section) -> Any:
        """An instance with the defaults of the section; None if these are the defaults of the class."""
        if not section.base:
            return None
        key, _, function = section.base.partition("=")
        chosen = next(self._effective(setting) for setting in _extra(section) if setting.name[-1] == key)
        try:
            return found(function)(chosen.value)
        except ValueError as error:
            raise SettingsError(f"{chosen.origin}: {error}") from None

    def _build(self, kind: type[T], above: Name, base: Any, values: Values) -> T:
        hints, changes = type_hints(kind, self._shared), dict[str, Any]()
        for field in fields(kind):  # type: ignore[arg-type]  # T is a dataclass
            name, inner = (*above, field.name), nested_config(hints[field.name])
            if inner is None:
                if name in values and not values[name].is_default:
                    changes[field.name] = values[name].value
            elif inner.__name__ in self._shared:
                changes[field.name] = self.read(self.sections[self._shared[inner.__name__]].kind())
            else:
                default = default_of(field) if base is None else getattr(base, field.name)
                given = [n for n, found in values.items() if n[: len(name)] == name and not found.is_default]
                if default is not None or given:
                    changes[field.name] = self._build(inner, name, default, values)
        try:
            return kind(**changes) if base is None else replace(base, **changes)
        except ValueError as error:
            raise SettingsError(_blamed(str(error), above, values)) from None


def _override(text: str) -> tuple[Name, _Given]:
    key, equals, value = text.partition("=")
    try:
        name: list[str] = []
        found: Any = tomllib.loads(f"{key} = 0")
        while isinstance(found, dict):
            ((part, found),) = found.items()
            name.append(part)
    except ValueError:
        equals = ""
    if not equals or len(name) < 2:
        raise SettingsError(f"--set {text}: write --set SECTION.NAME=VALUE, for example --set topics.partitions=12")
    return tuple(name), _Given(value, f"--set {key}", True)


def _extra(section: Section) -> Iterator[Setting]:
    for key, (default, meaning, variables) in section.extra.items():
        name = section.name, key
        yield Setting(name, str, default, meaning, False, (*variables, _variable(name)))


def _refuse_unknown(section: Section, here: Mapping[Name, _Given], known: Values) -> None:
    tables = {name[:length] for name in known for length in range(1, len(name))} | {(section.name,)}
    for name, given in here.items():
        if name in known or (name in tables and given.value == {}):
            continue
        written = dotted(name)
        if name in tables:
            raise SettingsError(f"{given.origin}: {written} is a table of settings: write [{written}] and fill it")
        elsewhere = [dotted(other) for other in known if other[-1] == name[-1]]
        hint = f"did you mean {elsewhere[0]}?" if elsewhere else _nearest(written, [dotted(other) for other in known])
        raise SettingsError(f"{given.origin}: there is no setting {written}; {hint}")


def _refuse_unknown_variables(section: Section, environment: Mapping[str, str], known: Values) -> None:
    variables = [variable for effective in known.values() for variable in effective.setting.variables]
    for variable in environment:
        if variable.startswith(f"FRESHET_{section.name.upper()}_") and variable not in variables:
            raise SettingsError(f"{variable}: there is no such variable; {_nearest(variable, variables)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f"did you mean {found[0]}?" if found else f"there are {', '.join(sorted(known))}"


def _blamed(problem: str, above: Name, values: Values) -> str:
    """The error of a config class, with the origins of its settings. The classes name the field that is wrong."""
    given = [found for name, found in values.items() if name[:-1] == above and not found.is_default]
    named = [found for found in given if found.setting.name[-1] in problem]
    origins = ", ".join(found.origin for found in named or given) or f"[{dotted(above)}]"
    return f"{origins}: {problem}"


def _variable(name: Name) -> str:
    return "_".join(("FRESHET", *name)).upper()
