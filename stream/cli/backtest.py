"""`freshet backtest`: the whole system on a log, compared with baselines."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, Finite, Group, PathText, command
from stream.cli.settings import Settings
from stream.cli.sources import LOG
from stream.cli.starting import started, topic_plan

__all__ = ["backtest"]

_SYSTEM = Group(
    "The system", "model.preset", "trainer.first_users", "trainer.first_interactions", "trainer.threads", "trainer.seed"
)
_SECTIONS = ("process", "log", "events", "limits", "updater", "scorer", "model", "trainer")


@command("backtest", _SYSTEM, LOG, KAFKA, sections=_SECTIONS)
@click.argument("file", required=False, type=PathText())
@click.option("--from-topic", is_flag=True, help="Instead of a file: what `interactions` holds now.")
@click.option(
    "--arm",
    multiple=True,
    help="What is compared; repeat it for several: fresh-popularity, item-item, ease-recent, system, frozen, "
    "retrained, or preset:NAME for the system with another model. All but the last if none is named.",
)
@click.option("--against", default="fresh-popularity", help="Arm that the others are compared with.")
@click.option(
    "--round-days",
    type=Finite(0.001),
    default=7.0,
    help="Event time between rounds on schedule, in days; it stands for trainer.round_seconds.",
)
@click.option(
    "--batch-events",
    type=click.IntRange(min=1),
    default=64,
    help="Events that are asked about with one state of models and counts.",
)
@click.option("--weighted", is_flag=True, help="Events count with the log's column of weights.")
@click.option(
    "--folder",
    type=PathText(),
    default=Path("freshet-state/backtest"),
    help="Folder from which an interrupted backtest goes on.",
)
@click.option("--restart", is_flag=True, help="Begin at the first event, whatever the folder holds.")
@click.option("--device", envvar="FRESHET_DEVICE", help="Where models run: cpu, cuda, cuda:1, ...")
@click.option("--csv", type=PathText(), help="Also write the figures to this file.")
@click.option("--png", type=PathText(), help="Also draw them over time into this file.")
def backtest(
    settings: Settings,
    file: Path | None,
    from_topic: bool,
    arm: tuple[str, ...],
    against: str,
    round_days: float,
    batch_events: int,
    weighted: bool,
    folder: Path,
    restart: bool,
    device: str | None,
    csv: Path | None,
    png: Path | None,
) -> None:
    """Replay a log as it happened: every event is asked about first, then learnt, with the trainer's own rounds.

    Needs no Kafka. The same command goes on with an interrupted backtest.

    FILE: a log as `freshet replay` reads it.
    """
    from model.device import pick_device
    from ops.monitor.windows import WindowConfig
    from stream.backtest.config import ARMS, BacktestConfig
    from stream.backtest.event_log import log_of_file, log_of_topic
    from stream.cli.backtest_report import run_and_report
    from stream.scorer.config import ScorerConfig
    from stream.sources.log.options import LogOptions
    from stream.trainer.config import TrainerConfig
    from stream.wire.records import Limits

    if (file is None) != from_topic:
        raise click.UsageError("give a log, or --from-topic")
    given = settings.is_given("windows.window_ms")
    try:
        config = BacktestConfig(
            arms=arm or ARMS,
            round_days=round_days,
            batch_events=batch_events,
            history_items=settings["updater.history_items"].value,
            windows=settings.read(WindowConfig) if given else None,
            trainer=settings.read(TrainerConfig),
            lists=settings.read(ScorerConfig).lists,
        )
        if against not in config.names:
            raise ValueError(f"--against {against} is no arm of this backtest: {', '.join(config.names)}")
        stop = started(settings, grace_seconds=None)
        if file is None:
            topic = topic_plan(settings).interactions
            log = log_of_topic(kafka_connection(settings), topic, settings.read(Limits))
        else:
            log, taken = log_of_file(file, settings.read(LogOptions), weighted)
            click.echo("\n".join(taken), err=True)
        if restart:
            shutil.rmtree(folder, ignore_errors=True)
        chosen = pick_device(device, settings.environment)
        complete = run_and_report(log, config, folder, chosen, stop, against, csv, png)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(0 if complete else 130)
