"""Options built from settings: each has its type, default and meaning from a field of a config class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from stream.cli.config_fields import Setting, as_text, expected, from_text
from stream.cli.kafka_settings import kafka_environment
from stream.cli.settings import Effective, Settings
from stream.cli.settings_file import Name
from stream.clients.connection import KafkaConnection

__all__ = ["KAFKA", "TOPICS", "Finite", "Group", "PathText", "Renamed", "SettingsCommand", "command"]


@dataclass(frozen=True)
class Renamed:
    """An option with another name than its setting, or with a larger unit.

    `Renamed("windows.window_ms", "--window-seconds", 1000)`: a second has 1000 milliseconds.
    """

    setting: str
    flag: str
    factor: float = 1


class Group:
    """Options under one heading of `--help`, by the dotted names of their settings; `log.*` stands for a section.

    An option has the name of its field.
    """

    def __init__(self, title: str, *settings: str | Renamed) -> None:
        self.title, self._settings = title, settings

    def options(self, settings: Settings) -> list[tuple[Effective, str, float]]:
        """(setting, option, factor) of each."""
        found = []
        for chosen in self._settings:
            if isinstance(chosen, Renamed):
                found.append((settings[chosen.setting], chosen.flag, chosen.factor))
            elif chosen.endswith(".*"):
                found += [(effective, _flag(effective), 1.0) for effective in settings.section(chosen[:-2]).values()]
            else:
                found.append((settings[chosen], _flag(settings[chosen]), 1.0))
        return found


def _flag(effective: Effective) -> str:
    return "--" + effective.setting.name[-1].replace("_", "-")


KAFKA = Group("Kafka", "kafka.bootstrap_servers", "topics.prefix")
TOPICS = Group("Kafka", "kafka.bootstrap_servers", "topics.prefix", "topics.partitions", "topics.replication_factor")


class _SettingType(click.ParamType):
    """Accepts the values of the setting, and passes them on as text."""

    def __init__(self, setting: Setting, factor: float) -> None:
        self._kind, self._factor = (setting.kind if factor == 1 else float), factor
        literals = [kind for kind in (setting.kind, *get_args(setting.kind)) if get_origin(kind) is Literal]
        words = {"a whole number": "INTEGER", "a number": "NUMBER", "a path": "PATH"}
        self.name = f"[{'|'.join(get_args(literals[0]))}]" if literals else words.get(expected(self._kind), "TEXT")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            found = from_text(value, self._kind)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value if self._factor == 1 else as_text(round(found * self._factor))


class Finite(click.FloatRange):
    """A finite number, neither nan nor inf, within the given bounds."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a number, got {value!r}", param, ctx)
        return number


class PathText(click.ParamType):
    """A path that need not exist: the command that uses it reports what is wrong with it."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            found: Path = from_text(str(value), Path)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return found


class SettingsCommand(click.Command):
    """A command whose function gets checked `Settings`, in addition to the command's own arguments.

    The options are created only when they are needed: the config classes of other commands may take seconds to import.
    The configs of `sections` are created before the function runs, so that errors are reported before anything starts;
    with `freshet --check` nothing else is done.
    """

    def __init__(self, *args: Any, groups: Sequence[Group] = (), sections: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups, self._sections = groups, sections
        self._sets: dict[str, tuple[Name, str]] = {}  # parameter -> setting, option

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *(option for _, options in self._made(ctx) for option in options)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in [*self._made(ctx), ("Options", super().get_params(ctx))]:
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        given = {}
        for parameter, (name, flag) in self._sets.items():
            value = ctx.params.pop(parameter, None)
            if value is not None:
                given[name] = as_text(value), flag
        settings = _settings(ctx).with_options(given)
        for section in self._sections:
            settings.read(settings.sections[section].kind())
        if KafkaConnection.is_given(environment := kafka_environment(settings)):
            KafkaConnection.from_environment(environment)
        if ctx.find_root().params.get("check"):
            click.echo(f"{ctx.command_path}: the settings fit")
            return None
        ctx.params["settings"] = settings
        return super().invoke(ctx)

    def _made(self, ctx: click.Context) -> list[tuple[str, list[click.Parameter]]]:
        settings = _settings(ctx)
        return [(group.title, [self._option(*found) for found in group.options(settings)]) for group in self._groups]

    def _option(self, effective: Effective, flag: str, factor: float) -> click.Parameter:
        setting = effective.setting
        parameter = "__".join(setting.name)
        self._sets[parameter] = setting.name, flag
        is_flag = setting.kind is bool
        return click.Option(
            [f"{flag}/--no-{flag[2:]}" if is_flag else flag, parameter],
            type=None if is_flag else _SettingType(setting, factor),
            default=None,
            help=f"{setting.meaning} {_shown(effective, factor)}".strip(),
        )


def command(name: str, *groups: Group, sections: Sequence[str] = ()) -> Any:
    """A decorator for the function of a command, which takes `settings` and the arguments that click's decorators
    add."""
    return click.command(name, cls=SettingsCommand, groups=groups, sections=sections)


def _settings(ctx: click.Context) -> Settings:
    found = ctx.find_object(Settings)
    return Settings() if found is None else found


def _shown(effective: Effective, factor: float) -> str:
    """The value that applies without the option, as a text."""
    value = effective.value
    if value in (None, "", ()) or effective.setting.secret:
        return ""
    shown = f"{value / factor:g}" if factor != 1 else as_text(value)
    return f"[{effective.origin}: {shown}]"
