"""`freshet doctor` and `freshet repartition`: the Kafka cluster as Freshet needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import Partitions, Prefix, Replication, Servers, connect
from stream.wire.topics import TopicPlan

_COLOURS = {"fits": "green", "warning": "yellow", "does not fit": "red"}


def doctor(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    process: Annotated[
        list[str] | None,
        typer.Option(help="updater, scorer or trainer: whose rights to check; may be repeated. All when not given."),
    ] = None,
) -> None:
    """Check a cluster before using it: brokers, topics and their settings, and every right that is needed.

    Run it as the user that the processes run as. It creates nothing and writes nothing. The exit code is 0 when
    everything fits (warnings included), else 2.
    """
    from rich.table import Table
    from rich.text import Text

    from stream.cluster.doctor import examine
    from stream.cluster.rights import PROCESSES
    from stream.local.terminal import output

    wanted = tuple(name for name in PROCESSES if process is None or name in process)
    unknown = set(process or ()) - set(PROCESSES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))} is none of {', '.join(PROCESSES)}")
    table = Table("", "what", "found", "what to do")
    bad = 0
    for finding in examine(connect(bootstrap_servers), TopicPlan(prefix, partitions, replication_factor), wanted):
        bad += finding.verdict == "does not fit"
        table.add_row(Text(finding.verdict, _COLOURS[finding.verdict]), finding.subject, finding.found, finding.mend)
    output().print(table)
    if bad:
        raise typer.Exit(2)


def repartition(
    partitions: Annotated[int, typer.Option(min=1, help="How many there shall be.")],
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    replication_factor: Replication = 1,
    history_items: Annotated[int, typer.Option(min=1, help="Newest items kept per user, as updaters keep them.")] = 200,
    work_dir: Annotated[
        Path | None, typer.Option(help="Where histories are collected, about as much as the topic; a temporary folder.")
    ] = None,
) -> None:
    """Grow to more partitions: every user moves to the one that murmur2 gives, histories and lists follow.

    Stop updaters and scorers first; producers may go on. An interrupted run is finished by running it again. From then
    on events that arrive in another partition than their user's are routed there.
    """
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from stream.cluster.repartition import repartition as move
    from stream.local.terminal import output

    plan = TopicPlan(prefix, partitions, replication_factor)
    console = output()
    with Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("looking")
        moved = move(
            connect(bootstrap_servers),
            plan,
            history_items,
            work_dir,
            progress=lambda what, done: bar.update(task, description=f"{what}: {done:,}"),
        )
    console.print(
        f"{partitions} partitions: of {moved.users:,} users, {moved.histories:,} histories and {moved.lists:,} lists "
        f"moved; {moved.refreshes:,} users are scored again. Start updaters and scorers with --partitions {partitions}"
    )
