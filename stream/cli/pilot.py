"""`freshet pilot`: tries other settings of the lists with some of the users."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, Finite, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import existing_topic, topic_plan

if TYPE_CHECKING:
    from stream.clients.connection import KafkaConnection
    from stream.pilots.pilot import Pilot
    from stream.pilots.topic import Pilots

__all__ = ["pilot"]


@click.group("pilot")
def pilot() -> None:
    """Try other settings of the lists on some of the users: start, report, stage, stop. See docs/pilots.md."""


@command("start", KAFKA, sections=("topics", "scorer"))
@click.argument("name")
@click.option(
    "--variant",
    "variants",
    metavar="NAME=SETTING=VALUE[,...]",
    multiple=True,
    required=True,
    help="Lists to try: ranking=model (the model's own order), ranking=popularity, list_items=N. Repeat for several.",
)
@click.option("--share", type=Finite(0, 1, min_open=True), default=0.01, help="Share of the users who get a variant.")
@click.option(
    "--difference",
    type=Finite(0, 1, min_open=True, max_open=True),
    default=0.02,
    help="Of the hit rate: intervals are tightest when a difference of this size becomes visible.",
)
def pilot_start(settings: Settings, name: str, variants: tuple[str, ...], share: float, difference: float) -> None:
    """Serve variants to a share of the users, the same users from beginning to end; all others are control."""
    from stream.pilots.pilot import PilotError, Variant, started
    from stream.pilots.topic import write_pilot

    parsed = [Variant.parse(text) for text in variants]
    longest = settings["scorer.lists.list_items"].value
    for variant in parsed:
        if variant.lists.list_items is not None and variant.lists.list_items >= longest:
            raise PilotError(f"variant {variant.name!r}: lists have {longest} items, a variant's can only be shorter")
    made = started(name, parsed, share, difference, _now_ms())
    connection, topic, pilots = _pilots(settings)
    if (running := pilots.running) is not None:
        raise PilotError(f"pilot {running.name} is running: `freshet pilot stop` ends it")
    if name in pilots.names:
        raise PilotError(f"there was a pilot {name} before: choose another name, so that its counts stay its own")
    write_pilot(connection, topic, made)
    click.echo(f"pilot {name} serves {', '.join(v.name for v in parsed)} to {share:.3g} of the users from now on")


@command("report", KAFKA, sections=("topics",))
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--png", type=PathText(), metavar="FILE", help="Also draw it; needs the extra `plots`.")
def pilot_report(settings: Settings, name: str | None, as_json: bool, png: Path | None) -> None:
    """Say how a pilot does, the newest one without NAME: at any time, as often as you like."""
    import json

    from stream.pilots.report import report

    _, _, pilots = _pilots(settings)
    chosen = _chosen(pilots, name)
    found = report(chosen, pilots.counts(chosen.name))
    if png is not None:
        from stream.cli.pilot_shown import draw

        draw(found, png)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        from stream.cli.pilot_shown import print_report
        from stream.local.terminal import output

        print_report(found, output())


@command("stage", KAFKA, sections=("topics",))
@click.argument("share", type=Finite(0, 1, min_open=True), required=False)
def pilot_stage(settings: Settings, share: float | None) -> None:
    """Serve the variants to another SHARE of the users: the next of 1, 10, 50 and 100 % without one."""
    from stream.pilots.topic import write_pilot

    connection, topic, pilots = _pilots(settings)
    before = _chosen(pilots, None)
    after = before.at(before.next_share if share is None else share, _now_ms())
    write_pilot(connection, topic, after)
    click.echo(f"pilot {after.name}, stage {after.stage}: {after.share:.3g} of the users, {before.share:.3g} before")


@command("stop", KAFKA, sections=("topics",))
@click.option("--reason", default="stopped by hand", help="Kept with the pilot.")
def pilot_stop(settings: Settings, reason: str) -> None:
    """End the pilot: everybody gets the lists of the settings again. What was counted is kept."""
    from stream.pilots.topic import write_pilot

    connection, topic, pilots = _pilots(settings)
    ended = _chosen(pilots, None).end(reason, _now_ms())
    write_pilot(connection, topic, ended)
    click.echo(f"pilot {ended.name} is over; `freshet pilot report {ended.name}` still shows it")


def _pilots(settings: Settings) -> tuple[KafkaConnection, str, Pilots]:
    """The connection, the topic, and its current content."""
    from stream.pilots.topic import PilotReader

    connection = kafka_connection(settings)
    topic = existing_topic(connection, topic_plan(settings).pilots)
    reader = PilotReader(connection, topic)
    try:
        return connection, topic, reader.pilots
    finally:
        reader.close()


def _chosen(pilots: Pilots, name: str | None) -> Pilot:
    """The pilot of this name, or the newest. Raises `PilotError`."""
    from stream.pilots.pilot import PilotError

    if not pilots.names:
        raise PilotError("there is no pilot: `freshet pilot start NAME --variant b=ranking=popularity` begins one")
    if name is not None and name not in pilots.names:
        raise PilotError(f"there is no pilot {name}, only {', '.join(pilots.names)}")
    current = pilots.current
    return pilots[name] if name is not None else (current or pilots[pilots.names[-1]])


def _now_ms() -> int:
    return int(time.time() * 1000)


for sub in (pilot_start, pilot_report, pilot_stage, pilot_stop):
    pilot.add_command(sub)
