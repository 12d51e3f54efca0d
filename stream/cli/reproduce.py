"""`freshet reproduce`: makes served lists again, and compares."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.leaving import shown_progress
from stream.cli.options import KAFKA, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import topic_plan

if TYPE_CHECKING:
    from stream.reproduce.verdict import Outcome

__all__ = ["reproduce"]

SAME, DIFFERS, NOT_TRIED = 0, 1, 2
_SHOWN = 20  # the most lists that are named

_SECTIONS = ("process", "topics", "limits", "input", "events", "items", "updater", "scorer", "up")


class Moment(click.ParamType):
    """A time in ISO 8601, in UTC if it names no zone, or in milliseconds since 1970 UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isdigit() and len(text) > 8:
            return int(text)
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is no time like 2026-01-31T12:00:00, nor milliseconds since 1970", param, ctx)
        return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)


@command("reproduce", KAFKA, sections=_SECTIONS)
@click.option("--user", help="Whose list.")
@click.option("--all", "everybody", is_flag=True, help="Everybody's lists instead of one user's.")
@click.option(
    "--at", type=Moment(), help="The last list that was written up to this time: ISO 8601, or ms; else the newest."
)
@click.option(
    "--journals",
    type=PathText(),
    multiple=True,
    help="Folder of a scorer, or one above several, in which journals are looked for; repeat it for more.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with both lists.")
@click.option("--device", envvar="FRESHET_DEVICE", help="Where models run; best where the scorer ran them.")
def reproduce(
    settings: Settings,
    user: str | None,
    everybody: bool,
    at: int | None,
    journals: tuple[Path, ...],
    as_json: bool,
    device: str | None,
) -> None:
    """Make a served list again and compare: same items, scores to 1e-6.

    From the log of interactions, the model's artifact by its hash, what `items` said then, and, where the list depends
    on what its scorer had counted, the scorer's journal. docs/reproduce.md says what has to be there.

    Exit code 0: all are the same; 1: one differs; 2: one cannot be tried.
    """
    import torch

    from model.device import pick_device
    from stream.local.pipeline import PipelineConfig
    from stream.reproduce.log_history import LogConfig
    from stream.reproduce.run import Question, ReproduceConfig
    from stream.reproduce.run import reproduce as made_again
    from stream.scorer.config import ScorerConfig
    from stream.updater.config import UpdaterConfig
    from stream.wire.layout import read_layout

    if (user is None) != everybody:
        raise click.UsageError("give --user or --all")
    scorer, updater = settings.read(ScorerConfig), settings.read(UpdaterConfig)
    connection, plan = kafka_connection(settings), topic_plan(settings)
    layout = read_layout(connection, plan.layout)
    strict = updater.repartition == "strict" or (layout is not None and layout.routing == "strict")
    torch.set_num_threads(scorer.torch_threads)  # the number of threads affects the rounding of sums
    config = ReproduceConfig(
        scorer.lists,
        LogConfig(updater.limits, updater.input, updater.history_items, strict),
        journals or (scorer.state_dir, settings.read(PipelineConfig).state_dir),
        pick_device(device, settings.environment),
    )
    question = Question(None if user is None else user.encode(), at)
    with shown_progress() as progress:
        outcomes = list(made_again(connection, plan, question, config, progress))
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(outcomes), indent=2).decode())
    else:
        _show(outcomes, several=everybody)
    sys.exit(_exit_code(outcomes))


def _exit_code(outcomes: list[Outcome]) -> int:
    verdicts = {outcome.verdict for outcome in outcomes}
    if "differs" in verdicts:
        return DIFFERS
    return SAME if verdicts == {"same"} else NOT_TRIED


def _show(outcomes: list[Outcome], several: bool) -> None:
    shown = [outcome for outcome in outcomes if outcome.verdict != "same"] if several else outcomes
    for outcome in shown[:_SHOWN]:
        _show_one(outcome, with_items=not several)
    if len(shown) > _SHOWN:
        click.echo(f"... and {len(shown) - _SHOWN} more, which --json names")
    if not several:
        return
    counts = Counter(outcome.verdict for outcome in outcomes)
    click.echo(f"{len(outcomes):,} lists: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    for part in ("history", "scored"):
        for how, count in Counter(outcome.parts.get(part) for outcome in outcomes).most_common():
            if how is not None:
                click.echo(f"  {count:,}: {part} {how}")
    largest = max((outcome.largest_difference for outcome in outcomes), default=0.0)
    click.echo(f"  largest difference of two scores: {largest:.2g}")


def _show_one(outcome: Outcome, with_items: bool) -> None:
    written = datetime.fromtimestamp(outcome.written / 1000, UTC).isoformat(timespec="milliseconds")
    where = f", recommendations {outcome.list_at}" if outcome.list_at else ""
    by = f", written {written}{where}, by {outcome.model or 'popularity'}" if outcome.written else ""
    click.echo(f"{outcome.user}: {outcome.verdict}{by}" + (f": {outcome.why}" if outcome.why else ""))
    if not with_items:
        return
    for name, how in outcome.parts.items():
        click.echo(f"  {name}: {how}")
    lists = outcome.served, outcome.made_again
    for place in range(max(map(len, lists))):
        cells = [f"{one[place].item} {one[place].score:.7g}" if place < len(one) else "-" for one in lists]
        click.echo(f"  {place + 1:>3}  {cells[0]:<32} {cells[1]}")
