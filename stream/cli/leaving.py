"""`freshet export`: what leaves Freshet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import topic_plan

__all__ = ["export"]


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


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr: topic, done, all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)
        yield lambda topic, done, total: bar.update(task, description=topic or "looking", completed=done, total=total)
