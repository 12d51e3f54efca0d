"""`freshet export` and `freshet user`: data that leaves Freshet."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, TOPICS, Finite, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import Impossible, topic_plan

__all__ = ["export", "user"]


@command("export", KAFKA, sections=("process", "topics"))
@click.argument("folder", type=PathText())
def export(settings: Settings, folder: Path) -> None:
    """Histories and newest lists as Parquet files, as they are at one offset of each partition.

    FOLDER: new or empty. Freshet may run meanwhile. docs/leaving.md describes the columns, with queries.
    """
    from stream.leaving.export import export as write
    from stream.leaving.export import offsets_shown

    with shown_progress() as progress:
        done = write(kafka_connection(settings), topic_plan(settings), folder, progress)
    for line in offsets_shown(done):
        click.echo(line)


@click.group("user")
def user() -> None:
    """Everything that is held about one user; and forgetting them, with a receipt."""


@command("export", KAFKA, sections=("process", "topics", "input"))
@click.argument("name", metavar="USER")
def user_export(settings: Settings, name: str) -> None:
    """Print everything that the topics hold about a user as JSON: histories, lists, events, dead letters.

    Every record of the topics is read, so it takes its time.
    """
    from stream.leaving.user import export_user
    from stream.wire.mapping import InputMapping

    mapping = settings.read(InputMapping)
    with shown_progress() as progress:
        found = export_user(kafka_connection(settings), topic_plan(settings), name, progress, mapping)
    _print(found)


@command("forget", TOPICS, sections=("process", "topics"))
@click.argument("name", metavar="USER")
@click.option("--wait-seconds", type=Finite(min=0), default=60.0, help="Longest wait for the erasures.")
@click.option("--receipt", type=PathText(), help="File to write the receipt to, beside printing it.")
@click.option("--redis", "url", help="Where a sink writes to: look whether the list is gone there, too.")
@click.option("--api", help="URL of `freshet api`: look there, too; a token is read from FRESHET_TOKEN.")
def user_forget(
    settings: Settings, name: str, wait_seconds: float, receipt: Path | None, url: str | None, api: str | None
) -> None:
    """Erase a user: history, lists, and the copies of both. Prints a receipt (JSON).

    Exit code 1: not every erasure was seen in time. The wish stays written, and is fulfilled when the workers run.
    """
    from stream.leaving.copies import ApiReader
    from stream.leaving.forget import forget_user
    from stream.sinks.config import SinkConfig
    from stream.sinks.redis_sink import RedisSink

    if receipt is not None and receipt.exists():
        raise Impossible(f"{receipt} is there already: name another file by --receipt")
    plan, sink = topic_plan(settings), None
    if url is not None or settings.is_given("sink.url"):
        config = settings.read(SinkConfig)
        config = config if url is None else replace(config, url=url)
        sink = RedisSink(config, plan.prefix, settings.environment.get("FRESHET_REDIS_PASSWORD"))
    reader = None if api is None else ApiReader(api, settings.environment.get("FRESHET_TOKEN"))
    with shown_progress() as progress:
        done = forget_user(kafka_connection(settings), plan, name, wait_seconds, progress, sink, reader)
    text = _print(done)
    if receipt is not None:
        try:
            receipt.write_text(text + "\n")
        except OSError as error:
            raise Impossible(f"{receipt}: {error.strerror}; the receipt is the output above") from None
    sys.exit(0 if done.complete else 1)


@command("receipt", KAFKA, sections=("process", "topics"))
@click.argument("file", type=PathText())
def user_receipt(settings: Settings, file: Path) -> None:
    """Print a receipt with the models that are in service now: has one come that never saw the user?

    FILE: a receipt of `freshet user forget`.
    """
    import msgspec

    from stream.leaving.forget import Receipt, renewed

    try:
        receipt = msgspec.json.decode(file.read_bytes(), type=Receipt)
    except OSError as error:
        raise Impossible(f"{file}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Impossible(f"{file} is no receipt of `freshet user forget`: {error}") from None
    _print(renewed(kafka_connection(settings), topic_plan(settings), receipt))


user.add_command(user_export)
user.add_command(user_forget)
user.add_command(user_receipt)


def _print(document: Any) -> str:
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    click.echo(text)
    return text


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A context with a progress bar on stderr; yields a function that takes (topic, records done, all records)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)
        yield lambda topic, done, total: bar.update(task, description=topic or "looking", completed=done, total=total)
