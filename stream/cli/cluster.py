"""`freshet doctor` and `freshet repartition`: checks and changes of the Kafka cluster."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import TOPICS, Group, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import topic_plan

__all__ = ["doctor", "repartition"]

_COLOURS = {"fits": "green", "warning": "yellow", "does not fit": "red"}


@command("doctor", TOPICS, sections=("process", "topics", "input"))
@click.option(
    "--process",
    multiple=True,
    type=click.Choice(["updater", "scorer", "trainer", "api", "sink"]),
    help="Process whose rights to check; repeat it for several. All of them when none is named.",
)
def doctor(settings: Settings, process: tuple[str, ...]) -> None:
    """Check a cluster before using it: brokers, topics and their settings, and every right that is needed.

    Run it as the user that the processes run as. It creates nothing and writes nothing. The exit code is 0 when
    everything fits (warnings included), else 2.
    """
    from rich.table import Table
    from rich.text import Text

    from stream.cluster.doctor import examine, examine_registry
    from stream.cluster.rights import PROCESSES
    from stream.local.terminal import output
    from stream.wire.mapping import InputMapping

    wanted = tuple(name for name in PROCESSES if not process or name in process)
    table = Table("", "what", "found", "what to do")
    bad = 0
    found = examine(kafka_connection(settings), topic_plan(settings), wanted)
    for finding in chain(found, examine_registry(settings.read(InputMapping))):
        bad += finding.verdict == "does not fit"
        table.add_row(Text(finding.verdict, _COLOURS[finding.verdict]), finding.subject, finding.found, finding.mend)
    output().print(table)
    sys.exit(2 if bad else 0)


@command("repartition", TOPICS, Group("Histories", "updater.history_items"), sections=("process", "topics", "updater"))
@click.option(
    "--work-dir",
    type=PathText(),
    help="Folder to collect histories in, about as much as the topic holds. A temporary folder when it is not given.",
)
def repartition(settings: Settings, work_dir: Path | None) -> None:
    """Grow to more partitions: every user moves to the one that murmur2 gives, histories and lists follow.

    Stop updaters, scorers, APIs and sinks first; producers may go on. --partitions is the number there shall be. An
    interrupted run is finished by running it again. From then on events that arrive in another partition than their
    user's are routed there.
    """
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from stream.cluster.repartition import repartition as move
    from stream.local.terminal import output

    if not settings.is_given("topics.partitions"):
        raise click.UsageError("--partitions is missing: name the number of partitions there shall be")
    plan, console = topic_plan(settings), output()
    with Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("looking")
        moved = move(
            kafka_connection(settings),
            plan,
            settings["updater.history_items"].value,
            work_dir,
            progress=lambda what, done: bar.update(task, description=f"{what}: {done:,}"),
        )
    console.print(
        f"{plan.partitions} partitions: of {moved.users:,} users, {moved.histories:,} histories and {moved.lists:,} "
        f"lists moved; {moved.refreshes:,} users are scored again. Start updaters and scorers with --partitions "
        f"{plan.partitions}"
    )
