"""`freshet evaluate`: compares models offline."""

from __future__ import annotations

from pathlib import Path

import click

from stream.cli.options import Finite, PathText, command
from stream.cli.settings import Settings
from stream.cli.sources import LOG

__all__ = ["evaluate"]


@command("evaluate", LOG, sections=("process", "log"))
@click.argument("file", type=PathText())
@click.option(
    "--protocol",
    type=click.Choice(["global", "per-user", "paper", "noisy", "honest"]),
    default="per-user",
    help="global: fit before a moment, ask about every later event, as a service is asked. per-user: each user's past "
    "and future. paper: the split of the published tables. noisy: the paper's robustness study.",
)
@click.option(
    "--model", multiple=True, help="Model to compare; repeat it for several. Two baselines stand in every table."
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, help="Trainings of each model that depends on chance.")
@click.option("--against", help="Row that the others are compared with: fresh-popularity if global, else ease-recent.")
@click.option(
    "--quantile",
    type=Finite(0, 1, min_open=True, max_open=True),
    default=0.9,
    help="Share of the events before the moment of `global`.",
)
@click.option(
    "--variety",
    type=Finite(0, 100),
    multiple=True,
    help="Also measure lists that hold less of what is popular, as with scorer.lists.variety.popular; repeat it to see "
    "what variety costs.",
)
@click.option("--device", envvar="FRESHET_DEVICE", help="Where models run: cpu, cuda, cuda:1, ...")
@click.option("--csv", type=PathText(), help="Also write the figures to this file.")
@click.option("--png", type=PathText(), help="Also draw NDCG@20 into this file.")
def evaluate(
    settings: Settings,
    file: Path,
    protocol: str,
    model: tuple[str, ...],
    seeds: int,
    against: str | None,
    quantile: float,
    variety: tuple[float, ...],
    device: str | None,
    csv: Path | None,
    png: Path | None,
) -> None:
    """Train models on a log and compare them, with paired intervals: accuracy, what lists are like beyond it, speed.

    FILE: a log as `freshet replay` reads it, or rows that are split already (.npz).
    """
    from model.device import pick_device
    from model.study.dataset import Dataset, load_split
    from model.study.interactions import Interactions
    from model.study.protocols import contestants
    from stream.cli.comparison import Comparison, compare
    from stream.cli.study_log import read_study_log
    from stream.local.terminal import output
    from stream.sources.log.options import LogOptions

    if protocol == "honest":
        click.echo("the protocol `honest` is called `per-user` now; the old name is accepted for a while", err=True)
        protocol = "per-user"
    try:
        contestants(protocol, model or None)  # type: ignore[arg-type]  # one of the choices
        source: Interactions | Dataset
        low_rated: Interactions | None = None
        if file.suffix == ".npz":
            source = load_split(file)
            users, items = len(source.train), len(source.catalogue.items)
            shown = [f"{file.name}: {users:,} users and {items:,} items, split already, without timestamps"]
        else:
            source, low_rated, shown = read_study_log(file, settings.read(LogOptions), low_rated=protocol == "noisy")
        click.echo("\n".join(shown), err=True)
        if protocol == "noisy" and low_rated is None:
            click.echo("there is no natural noise here: it is what --min-rating leaves out of a log", err=True)
        asked = Comparison(
            protocol=protocol,  # type: ignore[arg-type]  # one of the choices
            models=model or None,
            seeds=seeds,
            against=against,
            quantile=quantile,
            device=pick_device(device, settings.environment),
            variety=variety,
        )
        outcome = compare(asked, source, low_rated, output())
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if csv is not None:
        outcome.write_csv(csv)
    if png is not None:
        outcome.write_png(png)
