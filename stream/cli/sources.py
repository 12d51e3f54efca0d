"""What writes to `interactions`: `freshet replay` and `freshet simulate`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import (
    Partitions,
    Prefix,
    Replication,
    Servers,
    connect,
    ensured,
    log_level,
    name_or_position,
)
from stream.wire.topics import TopicPlan


def replay(
    file: Annotated[Path, typer.Argument(help="MovieLens files, CSV, TSV, parquet or JSON lines; .gz too.")],
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    speed: Annotated[str, typer.Option(help="Multiple of real time, or max.")] = "max",
    min_rating: Annotated[float | None, typer.Option(help="Leave out events rated below this.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user, by name or position from 0.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column of the time.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None,
    weight: Annotated[str | None, typer.Option(help="Column of the strength.")] = None,
    event: Annotated[str | None, typer.Option(help="Column of the event's kind.")] = None,
    time_unit: Annotated[str | None, typer.Option(help="s, ms, us or ns; judged by size when not given.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between columns; found when not given.")] = None,
    progress_dir: Annotated[Path, typer.Option(help="Where it is noted what was delivered.")] = Path(
        "freshet-state/replay"
    ),
    restart: Annotated[bool, typer.Option("--restart", help="From the beginning, whatever was delivered.")] = False,
) -> None:
    """Send a log to `interactions` in time order; an interrupted replay continues where it stopped."""
    from stream.process import prepare_process
    from stream.sources.interaction_log import Columns
    from stream.sources.replay import replay_file

    stop = prepare_process(log_level(), grace_seconds=None)
    try:
        pace = math.inf if speed == "max" else float(speed)
    except ValueError:
        raise typer.BadParameter(f"{speed!r} is neither a number nor max", param_hint="--speed") from None
    columns = Columns(
        user=name_or_position(user),
        item=name_or_position(item),
        timestamp=name_or_position(timestamp),
        rating=name_or_position(rating),
        weight=name_or_position(weight),
        event=name_or_position(event),
        time_unit=time_unit,
        delimiter=delimiter,
    )
    connection = connect(bootstrap_servers)
    plan = ensured(connection, TopicPlan(prefix, partitions, replication_factor))
    result = replay_file(
        file,
        connection,
        plan.interactions,
        stop,
        progress_dir=progress_dir,
        columns=columns,
        min_rating=min_rating,
        speed=pace,
        restart=restart,
    )
    sys.exit(0 if result.complete else 130)


def simulate(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    rate: Annotated[float, typer.Option(min=0.001, help="Events per second.")] = 100.0,
    events: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    users: Annotated[int, typer.Option(min=1)] = 2000,
    items: Annotated[int, typer.Option(min=12)] = 500,
    broken: Annotated[float, typer.Option(min=0, max=0.99, help="Share of broken records.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same world.")] = 0,
) -> None:
    """Send events of a simulated world, with drifting tastes, launches and fashions, to `interactions`."""
    import numpy as np
    from rich.console import Console

    from stream.process import prepare_process
    from stream.sources.outbox import InteractionSink
    from stream.sources.simulate import World, WorldConfig
    from stream.sources.simulate import simulate as run

    stop = prepare_process(log_level(), grace_seconds=None)
    connection = connect(bootstrap_servers)
    plan = ensured(connection, TopicPlan(prefix, partitions, replication_factor))
    world = World(WorldConfig(users=users, items=items), np.random.default_rng(seed))
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
