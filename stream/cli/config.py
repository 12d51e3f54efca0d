"""`freshet config`: the effective settings and where each comes from; the reference of all settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import groupby

import click

from stream.cli.config_fields import as_toml, dotted, expected
from stream.cli.kafka_settings import kafka_connection, kafka_environment
from stream.cli.options import command
from stream.cli.sections import SECTIONS
from stream.cli.settings import Effective, Settings
from stream.clients.connection import KafkaConnection

__all__ = ["config", "effective_settings", "reference"]

_ORIGINS = 48  # column
_INTRODUCTION = """\
# Configuration

*Written by `freshet config --reference`; a test compares it with the code.*

Every command reads the same settings. They come from four places, and the later one wins:

1. the defaults below,
2. a settings file in TOML: `freshet --config freshet.toml COMMAND`, or `FRESHET_CONFIG`,
3. the environment: `FRESHET_` and the name in capitals, `FRESHET_LIMITS_AHEAD_MS`; a few have a shorter name
   beside it,
4. the command line: an option of the command (`freshet COMMAND --help`), or for any setting
   `freshet --set limits.ahead_ms=5000 COMMAND`.

`freshet config` prints what holds, and where each value comes from. `freshet --check COMMAND` checks the settings of a
command and does nothing else. A name that does not exist is refused. Settings are read when a process starts, so a
change needs a restart. A secret does not belong in the settings file: the environment or a file of its own has it.
"""


@command("config")
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)), metavar="[SECTION]...")
@click.option("--changed", is_flag=True, help="Leave out what is the default.")
@click.option("--reference", "as_reference", is_flag=True, help="Print docs/configuration.md instead.")
def config(settings: Settings, sections: tuple[str, ...], changed: bool, as_reference: bool) -> None:
    """Show the effective settings as a settings file, and where each comes from.

    Later ones win: default, settings file, environment, option. Settings are read when a process starts.
    """
    if as_reference:
        click.echo(reference(settings), nl=False)
        return
    for name in sections or settings.sections:
        found: Iterable[Effective] = settings.section(name).values()
        if name == "kafka" and KafkaConnection.is_given(kafka_environment(settings)):
            found = _from_files(settings, found)
        for line in _tables([effective for effective in found if not changed or not effective.is_default]):
            click.echo(line)


def effective_settings(settings: Settings) -> str:
    """A settings file with all values that differ from the defaults, without secrets."""
    lines: list[str] = []
    for name in settings.sections:
        changed = [effective for effective in settings.section(name).values() if not effective.is_default]
        lines += _tables(changed)
    return "\n".join(lines)


def _tables(found: Iterable[Effective]) -> Iterator[str]:
    for table, inside in _by_table(found):
        if all(effective.setting.absent and effective.is_default for effective in inside):
            yield f"# [{table}] is not used\n"
            continue
        yield f"[{table}]"
        for setting, value, origin in inside:
            key = dotted(setting.name[-1:])
            if setting.secret and value:
                line = f"# {key} is set"
            elif value is None or value == "":
                line = f"# {key} ="
            else:
                line = f"{key} = {as_toml(value)}"
            yield f"{line:<{_ORIGINS}}# {origin}"
        yield ""


def _by_table(found: Iterable[Effective]) -> list[tuple[str, list[Effective]]]:
    """Settings by their table; TOML requires the values of a table before the tables inside of it."""
    order = {effective.setting.name[:-1]: place for place, effective in reversed(list(enumerate(found)))}
    ordered = sorted(found, key=lambda effective: order[effective.setting.name[:-1]])
    return [(dotted(table), list(inside)) for table, inside in groupby(ordered, lambda e: e.setting.name[:-1])]


def _from_files(settings: Settings, found: Iterable[Effective]) -> Iterator[Effective]:
    """The settings of [kafka], including those from a file that one of them names."""
    connection, environment = kafka_connection(settings), kafka_environment(settings)
    known = {field.name for field in fields(connection)}
    for effective in found:
        name = effective.setting.name[-1]
        value = getattr(connection, name) if name in known else effective.value
        if value == effective.value:
            yield effective
        else:
            password_file = environment.get("FRESHET_SASL_PASSWORD_FILE") if name == "sasl_password" else None
            yield effective._replace(value=value, origin=password_file or environment["FRESHET_KAFKA_CONFIG"])


def reference(settings: Settings) -> str:
    """docs/configuration.md: every setting with its type, default and meaning."""
    lines = [_INTRODUCTION]
    for section in settings.sections.values():
        lines += [f"## [{section.name}]", "", section.meaning, ""]
        for table, inside in _by_table(settings.described(section)):
            if table != section.name:
                lines += [f"### [{table}]", ""]
            lines += ["| setting | a | default | meaning |", "|---|---|---|---|", *map(_row, inside), ""]
    return "\n".join(lines)


def _row(effective: Effective) -> str:
    setting = effective.setting
    is_silent = setting.computed or setting.default is None or setting.default == ""
    default = "" if is_silent else f"`{as_toml(setting.default)}`"
    kind = expected(setting.kind).removeprefix("a ")
    return f"| `{setting.name[-1]}` | {kind} | {default} | {setting.meaning} |"
