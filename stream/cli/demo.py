"""`freshet demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import (
    log_level,
)


def demo(
    log: Annotated[
        Path | None, typer.Option(help="A real log to replay (MovieLens, CSV, parquet, ...); else a simulated world.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long events flow.")] = 150.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Simulated events per second.")] = 200.0,
    min_rating: Annotated[float | None, typer.Option(help="Least rating of a log's events.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 0,
) -> None:
    """Everything at once: Kafka, all processes and a stream of events, watched live; ends by itself with a summary."""
    from rich.console import Console

    from stream.demo.run import Demo, DemoConfig, print_report
    from stream.process import prepare_process

    stop = prepare_process("warning" if log_level() == "info" else log_level(), grace_seconds=None)
    config = DemoConfig(log, min_rating, seconds, rate, seed=seed)
    report = Demo(config, Console(), log_level()).run(stop)
    print_report(report, config, print)
    sys.exit(1 if report.problems() else 0)
