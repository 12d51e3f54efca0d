"""The sources, which write to `interactions`: `freshet replay` and `freshet simulate`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import TOPICS, Finite, Group, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import started, topic_plan, topics_made

__all__ = ["LOG", "replay", "simulate"]

_WORLD = Group("World", "simulate.users", "simulate.items")
LOG = Group("Columns of the log", "log.*")


class _Speed(click.ParamType):
    name = "NUMBER|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if value == "max":
            return math.inf
        try:
            speed = float(value)
        except ValueError:
            speed = math.nan
        if not 0 < speed < math.inf:
            self.fail(f"expected a positive number or max, got {value!r}", param, ctx)
        return speed


@command("replay", TOPICS, LOG, sections=("process", "topics", "log"))
@click.argument("file", type=PathText())
@click.option("--speed", type=_Speed(), default="max", help="Multiple of real time, or max.")
@click.option(
    "--progress-dir",
    type=PathText(),
    default=Path("freshet-state/replay"),
    help="Folder that remembers what was delivered.",
)
@click.option("--restart", is_flag=True, help="Begin at the first event, whatever was delivered.")
@click.option("--dry-run", is_flag=True, help="Read the log and show what would be sent; send nothing.")
def replay(settings: Settings, file: Path, speed: float, progress_dir: Path, restart: bool, dry_run: bool) -> None:
    """Send a log to `interactions` in time order; an interrupted replay continues where it stopped.

    FILE: CSV, TSV and their like, JSON lines or arrays, parquet, or a folder of one of them; also compressed, in a zip
    or a tar. Columns are recognised by their names and by what they hold, and shown before the first event leaves.
    """
    from rich.console import Console

    from stream.sources.log.options import LogOptions
    from stream.sources.replay import ReadingStopped, describe, read_shown, replay_file

    stop = started(settings, grace_seconds=None)
    options = settings.read(LogOptions)
    try:
        if dry_run:
            with read_shown(file, options, Console(stderr=True), stop) as log:
                describe(log, Console())
            return
        connection = kafka_connection(settings)
        plan = topics_made(connection, topic_plan(settings))
        result = replay_file(
            file,
            connection,
            plan.interactions,
            stop,
            progress_dir=progress_dir,
            options=options,
            speed=speed,
            restart=restart,
        )
    except ReadingStopped:
        sys.exit(130)
    sys.exit(0 if result.complete else 130)


@command("simulate", TOPICS, _WORLD, sections=("process", "topics", "simulate"))
@click.option("--rate", type=Finite(min=0.001), default=100.0, help="Events per second.")
@click.option("--events", type=click.IntRange(min=1), help="Stop after this many events.")
@click.option("--seconds", type=Finite(min=0.1), help="Stop after this time.")
@click.option("--broken", type=Finite(0, 1, max_open=True), default=0.0, help="Share of broken records.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="The same seed, the same world.")
def simulate(
    settings: Settings, rate: float, events: int | None, seconds: float | None, broken: float, seed: int
) -> None:
    """Send events of a simulated world, with drifting tastes, launches and fashions, to `interactions`."""
    import numpy as np
    from rich.console import Console

    from stream.sources.outbox import InteractionSink
    from stream.sources.simulate import World, WorldConfig
    from stream.sources.simulate import simulate as run

    stop = started(settings, grace_seconds=None)
    connection = kafka_connection(settings)
    plan = topics_made(connection, topic_plan(settings))
    world = World(settings.read(WorldConfig), np.random.default_rng(seed))
    console = Console(stderr=True)
    with InteractionSink(connection, plan.interactions) as sink, console.status("") as status:
        result = run(
            world,
            sink,
            stop,
            rate=rate,
            events=events,
            seconds=seconds,
            broken=broken,
            on_delivered=lambda count: status.update(f"{count:,} records delivered"),
        )
    console.print(
        f"{result.delivered:,} records delivered, {result.broken:,} of them broken, in {result.seconds:.1f} s"
    )
