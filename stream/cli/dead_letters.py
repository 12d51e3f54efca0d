"""`freshet dead-letters`: dead letters are shown, counted, corrected and sent again."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import topic_plan

if TYPE_CHECKING:
    from stream.letters.mending import Mended
    from stream.letters.reading import Letter, Wanted
    from stream.letters.resending import Account

__all__ = ["dead_letters"]

_F = TypeVar("_F", bound=Callable[..., Any])
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SHOWN_BYTES = 300


@click.group("dead-letters")
def dead_letters() -> None:
    """Show the records that were refused, count them, and send them again once they are mended.

    \b
    freshet dead-letters count                                  how many of each reason
    freshet dead-letters list --reason timestamp                the newest, with what is wrong
    freshet dead-letters resend --time-unit s --reason timestamp --dry-run
                                                                would they fit if their times were seconds?
    freshet dead-letters resend --time-unit s --reason timestamp
    freshet dead-letters save letters.jsonl --reason decode     those that want a person: edit the file, then
    freshet dead-letters resend letters.jsonl
    """  # noqa: D301


class _Moment(click.ParamType):
    """A time, or a duration before now."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        now = datetime.now(UTC)
        try:
            if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value):
                moment = now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
            else:
                moment = datetime.fromisoformat(value)
                moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return int(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            self.fail(f"expected a time such as 2026-11-27T10:00 (UTC) or an age such as 2h, got {value!r}", param, ctx)


class _Offsets(click.ParamType):
    """One offset, or a first and a last offset."""

    name = "FIRST-LAST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,18})(-(\d{1,18})?)?", value)
        if found is None or (found[3] and int(found[3]) < int(found[1])):
            self.fail(f"expected an offset such as 17, 17-30 or 17-, got {value!r}", param, ctx)
        last = int(found[3]) if found[3] else None if found[2] else int(found[1])
        return int(found[1]), last


class _Pair(click.ParamType):
    """NAME=SOMETHING."""

    name = "NAME=VALUE"

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        import msgspec

        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not (name and equals and (text or self._as_json)):
            self.fail(f"expected {self.name}, got {value!r}", param, ctx)
        if not self._as_json:
            return name, text
        try:
            return name, msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            return name, text


_FILTERS = [
    click.option("--reason", "reasons", multiple=True, help="Only of this reason, as `count` names it; repeatable."),
    click.option("--detail", default="", help="Only with this text in what was said about them."),
    click.option(
        "--partition",
        "partitions",
        type=click.IntRange(min=0),
        multiple=True,
        help="Only records of this partition of `interactions`; repeatable.",
    ),
    click.option("--offsets", type=_Offsets(), help="Only these offsets of `dead-letters`: 17, 17-30 or 17-."),
    click.option("--since", type=_Moment(), help="Only refused from this time on: 2026-11-27T10:00 (UTC), or 2h ago."),
    click.option("--until", type=_Moment(), help="Only refused before this time."),
]


def _filtered(function: _F) -> _F:
    return reduce(lambda decorated, option: option(decorated), reversed(_FILTERS), function)


def _wanted(
    reasons: tuple[str, ...],
    detail: str,
    partitions: tuple[int, ...],
    offsets: tuple[int, int | None] | None,
    since: int | None,
    until: int | None,
) -> Wanted:
    from stream.letters.reading import Wanted

    first, last = offsets or (0, None)
    return Wanted(frozenset(reasons), detail, frozenset(partitions), first, last, since or 0, until)


@command("list", KAFKA, sections=("process", "topics"))
@_filtered
@click.option("--last", type=click.IntRange(1, 100_000), default=20, help="At most so many, the newest.")
def dead_letters_list(settings: Settings, last: int, **filters: Any) -> None:
    """Show the newest dead letters: what was refused and why, where it came from, and its headers."""
    from stream.letters.reading import letters
    from stream.letters.resent import read_resent
    from stream.local.terminal import output

    connection, plan = kafka_connection(settings), topic_plan(settings)
    shown = deque(letters(connection, plan.dead_letters, _wanted(**filters)), maxlen=last)
    resent = read_resent(connection, plan) if shown else ()
    console = output()
    for letter in shown:
        state = ", sent again" if letter in resent else ""
        came = f"{letter.topic}/{letter.source_partition}/{letter.source_offset}"
        console.print(f"[bold]{letter.name}[/]  {letter.reason}, {_age(letter.at_ms)} ago{state}", highlight=False)
        lines = [("why", letter.detail), ("from", came), ("key", _text(letter.key)), ("value", _text(letter.value))]
        lines += [(f"header {name}", _text(value)) for name, value in letter.headers]
        for name, text in lines:
            console.print(f"    {name}: {text}", markup=False, highlight=False, soft_wrap=True)
    if not shown:
        console.print("no dead letters" + (" like that" if _is_narrowed(filters) else ""))


@command("count", KAFKA, sections=("process", "topics"))
@_filtered
def dead_letters_count(settings: Settings, **filters: Any) -> None:
    """Count the dead letters of each reason, with the first and last time and an example of each."""
    from rich.table import Table

    from stream.letters.reading import letters
    from stream.letters.resent import read_resent
    from stream.local.terminal import output

    connection, plan = kafka_connection(settings), topic_plan(settings)
    counts: dict[str, list[Any]] = {}
    resent = read_resent(connection, plan)
    for letter in letters(connection, plan.dead_letters, _wanted(**filters)):
        entry = counts.setdefault(letter.reason, [0, 0, letter.at_ms, letter.at_ms, ""])
        entry[0] += 1
        entry[1] += letter in resent
        entry[2], entry[3] = min(entry[2], letter.at_ms), max(entry[3], letter.at_ms)
        entry[4] = f"{letter.name}: {letter.detail[:80]}"
    table = Table("reason", "letters", "of them sent again", "first", "last", "the last one")
    for reason, (count, again, first, until, example) in sorted(counts.items(), key=lambda found: -found[1][0]):
        table.add_row(reason, f"{count:,}", f"{again:,}", f"{_age(first)} ago", f"{_age(until)} ago", example)
    table.add_row("all", f"{sum(c[0] for c in counts.values()):,}", f"{sum(c[1] for c in counts.values()):,}")
    output().print(table)


@command("save", KAFKA, sections=("process", "topics"))
@click.argument("file", type=PathText())
@_filtered
def dead_letters_save(settings: Settings, file: Path, **filters: Any) -> None:
    """Write dead letters to a new FILE of JSON lines, to edit and to give to `resend`.

    `resend` reads "letter", "key" and "value" of each line. Take lines out of the file to leave their letters alone.
    """
    from stream.letters.edited import save_letters
    from stream.letters.reading import LetterError, letters

    connection, plan = kafka_connection(settings), topic_plan(settings)
    count = save_letters(file, letters(connection, plan.dead_letters, _wanted(**filters)))
    if not count:
        file.unlink()
        raise LetterError("there are no dead letters like that, so nothing was saved")
    click.echo(f"{count:,} letters in {file}; edit them, then: freshet dead-letters resend {file}")


@command("resend", KAFKA, sections=("process", "topics", "limits", "input"))
@click.argument("file", type=PathText(), required=False)
@_filtered
@click.option("--rename", type=_Pair(False), multiple=True, help="OLD=NEW: call a field anew; a.b is b inside of a.")
@click.option("--drop", multiple=True, help="Leave this field out; repeatable.")
@click.option("--put", type=_Pair(True), multiple=True, help="FIELD=VALUE, whatever the record says.")
@click.option("--default", "defaults", type=_Pair(True), multiple=True, help="FIELD=VALUE where there is none.")
@click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), default="ms", help="What times are in.")
@click.option("--strip-bytes", type=click.IntRange(0, 1024), default=0, help="Bytes before the JSON to leave out.")
@click.option("--key-from-user", is_flag=True, help="Take the field `user` as the record's key.")
@click.option("--again", is_flag=True, help="Send also those that were sent again before.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent and what would be refused; send nothing.")
def dead_letters_resend(
    settings: Settings,
    file: Path | None,
    rename: tuple[tuple[str, str], ...],
    drop: tuple[str, ...],
    put: tuple[tuple[str, Any], ...],
    defaults: tuple[tuple[str, Any], ...],
    time_unit: Any,
    strip_bytes: int,
    key_from_user: bool,
    again: bool,
    dry_run: bool,
    **filters: Any,
) -> None:
    """Send mended dead letters to `interactions` again, each once, with their headers.

    Each is mended by the options, in their order below, or taken as it stands in FILE (see `save`), and sent only if
    the updater would accept it. What was sent is remembered on the topic `layout`, in the same transaction: run it
    again after an interruption. The header `resent-from` names the letter.

    Exit code 2: letters are left that would be refused again.
    """
    import time

    from stream.letters.edited import read_edited
    from stream.letters.mending import Changes, Judge
    from stream.letters.reading import LetterError, letters
    from stream.letters.resending import Resender, resend
    from stream.letters.resent import read_resent
    from stream.wire.mapping import InputMapping
    from stream.wire.records import Limits

    changes = Changes(strip_bytes, dict(rename), frozenset(drop), dict(put), dict(defaults), time_unit, key_from_user)
    given = {} if file is None else read_edited(file)
    if given and changes:
        raise click.UsageError("a file says what is sent: edit it, and leave the options that change fields out.")
    connection, plan = kafka_connection(settings), topic_plan(settings)
    judge = Judge(settings.read(Limits), int(time.time() * 1000), settings.read(InputMapping).translator)
    found = _in_file(letters(connection, plan.dead_letters, _wanted(**filters)), given)
    if dry_run:
        account = resend(found, plan, changes, given, judge, read_resent(connection, plan), _not_at_all, again)
    else:
        with Resender(connection, plan) as resender:
            account = resend(found, plan, changes, given, judge, resender.resent, resender.send, again)
    seen = account.sent + account.before + account.elsewhere + account.refused.total()
    if not seen:
        raise LetterError("there are no dead letters like that, so nothing was sent")
    _tell(account, dry_run, len(given) - seen if given else 0)
    sys.exit(2 if account.refused else 0)


for _command in (dead_letters_list, dead_letters_count, dead_letters_save, dead_letters_resend):
    dead_letters.add_command(_command)


def _in_file(found: Iterator[Letter], given: Mapping[str, Mended]) -> Iterator[Letter]:
    return (letter for letter in found if not given or letter.name in given)


def _not_at_all(batch: Sequence[tuple[Letter, Mended]]) -> None:
    """Send nothing."""


def _tell(account: Account, dry_run: bool, missing: int) -> None:
    click.echo(f"{'would be sent' if dry_run else 'sent again'}: {account.sent:,}")
    if account.before:
        click.echo(f"sent again before: {account.before:,} (--again sends them once more)")
    if account.elsewhere:
        click.echo(f"left alone, because they came from another topic: {account.elsewhere:,}")
    if missing:
        click.echo(f"in the file and no letters any more, or left out by the filters: {missing:,}")
    for reason, count in account.refused.most_common():
        letter, detail = account.first_refused[reason]
        click.echo(f"would be refused again, {reason}: {count:,}; the first is {letter.name}: {detail}")


def _is_narrowed(filters: Mapping[str, Any]) -> bool:
    return any(value not in (None, (), "") for value in filters.values())


def _age(at_ms: int) -> str:
    seconds = max(datetime.now(UTC).timestamp() - at_ms / 1000, 0)
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _text(content: bytes | None) -> str:
    if content is None:
        return "null"
    text = content[:_SHOWN_BYTES].decode(errors="backslashreplace")
    more = f" ... {len(content):,} bytes" if len(content) > _SHOWN_BYTES else ""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text) + more
