"""`freshet evaluate`: models compared offline."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import Device, name_or_position


def evaluate(
    file: Annotated[
        Path, typer.Argument(help="A log as `freshet replay` reads it, or rows that are split already (.npz).")
    ],
    protocol: Annotated[
        str,
        typer.Option(
            help="global: fit before a moment, ask about every later event, as a service is asked. per-user: each "
            "user's past and future. paper: the split of the published tables. noisy: the paper's robustness study."
        ),
    ] = "per-user",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Which; repeat for several. A usual set if none. Two baselines stand in every table."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model that depends on chance.")] = 5,
    against: Annotated[
        str | None,
        typer.Option(help="The row that the others are compared with: fresh-popularity if global, else ease-recent."),
    ] = None,
    quantile: Annotated[float, typer.Option(help="Share of the events before the moment of `global`.")] = 0.9,
    min_rating: Annotated[float | None, typer.Option(help="Leave out events rated below this.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only events of this kind; repeat for several.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user, by name or position from 0.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column of the time.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None,
    event: Annotated[str | None, typer.Option(help="Column of the event's kind.")] = None,
    device: Device = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Also draw NDCG@20 here.")] = None,
) -> None:
    """Train models on a log and compare them, with paired intervals: accuracy, what lists are like beyond it, speed."""
    from model.device import pick_device
    from model.study.dataset import Dataset, load_split
    from model.study.interactions import Interactions
    from model.study.protocols import contestants
    from stream.cli.comparison import Comparison, compare
    from stream.cli.study_log import read_low_rated, read_study_log
    from stream.local.terminal import output
    from stream.sources.interaction_log import Columns

    if protocol == "honest":
        print("the protocol `honest` is called `per-user` now; the old name is accepted for a while", file=sys.stderr)
        protocol = "per-user"
    try:
        contestants(protocol, model or None)  # type: ignore[arg-type]  # an unknown one is refused in there
        source: Interactions | Dataset
        low_rated = None
        if file.suffix == ".npz":
            source = load_split(file)
            users, items = len(source.train), len(source.catalogue.items)
            summary = f"{file.name}: {users:,} users and {items:,} items, split already, without timestamps"
        else:
            columns = Columns(
                user=name_or_position(user),
                item=name_or_position(item),
                timestamp=name_or_position(timestamp),
                rating=name_or_position(rating),
                event=name_or_position(event),
            )
            source, summary = read_study_log(file, columns, min_rating, kind or ())
            if protocol == "noisy" and min_rating is not None:
                source, low_rated = read_low_rated(file, columns, min_rating, kind or ())
        print(summary, file=sys.stderr)
        if protocol == "noisy" and low_rated is None:
            print("there is no natural noise here: it is what --min-rating leaves out of a log", file=sys.stderr)
        asked = Comparison(
            protocol=protocol,  # type: ignore[arg-type]
            models=model or None,
            seeds=seeds,
            against=against,
            quantile=quantile,
            device=pick_device(device, os.environ),
        )
        outcome = compare(asked, source, low_rated, output())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if csv is not None:
        outcome.write_csv(csv)
    if png is not None:
        outcome.write_png(png)
