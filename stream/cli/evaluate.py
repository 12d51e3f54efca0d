"""`freshet evaluate`: models compared offline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import Device


def evaluate(
    file: Annotated[Path, typer.Argument(help="A log, or MovieLens-1M split by time (.npz).")],
    protocol: Annotated[str, typer.Option(help="paper: as the published tables; honest: for claims.")] = "honest",
    model: Annotated[list[str] | None, typer.Option(help="Which; repeat for several. A usual set when none.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model that depends on chance.")] = 5,
    against: Annotated[str, typer.Option(help="The row that the others are compared with.")] = "ease-recent",
    device: Device = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Also draw NDCG@20 here.")] = None,
) -> None:
    """Train models on a log and compare them: recall, NDCG, coverage, Gini, novelty, speed, with paired intervals."""
    from model.device import pick_device
    from stream.cli.comparison import compare
    from stream.local.terminal import output

    try:
        compare(
            file,
            output(),
            protocol=protocol,  # type: ignore[arg-type]  # refused by name below
            models=model or None,
            seeds=seeds,
            against=against,
            device=pick_device(device, os.environ),
            csv=csv,
            png=png,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
