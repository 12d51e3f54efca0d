"""`freshet backup` and `freshet restore`: the state outside of Kafka."""

from __future__ import annotations

from pathlib import Path

import click

from stream.cli.config import effective_settings
from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, TOPICS, Group, PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import own_folder, topic_plan

__all__ = ["backup", "restore"]

_SCORERS = click.option(
    "--scorer-dir",
    "scorers",
    type=PathText(),
    multiple=True,
    help="Folder of a scorer's state, for its popularity; repeat it for several. That of the settings when none is "
    "named.",
)


@command("backup", KAFKA, Group("Trainer", "trainer.state_dir"), sections=("process", "topics"))
@click.argument("folder", type=PathText())
@_SCORERS
def backup(settings: Settings, folder: Path, scorers: tuple[Path, ...]) -> None:
    """Keep what Kafka does not hold: models in service, decisions of the closed loop, popularity, settings.

    FOLDER: new or empty. Freshet may run meanwhile. Run it where the models and the trainer's folder are.
    """
    from stream.leaving.backup import back_up

    contents = back_up(
        kafka_connection(settings),
        topic_plan(settings),
        folder,
        settings["trainer.state_dir"].value / "decisions.json",
        scorers or (settings["scorer.state_dir"].value,),
        effective_settings(settings),
    )
    held = ", ".join(f"{slot}: {version}" for slot, version in contents.versions.items()) or "no model is in service"
    decisions = "decisions" if "decisions.json" in contents.files else "no decisions"
    click.echo(f"{folder}: {held}; {decisions}; popularity of {contents.popularity} scorers")


@command(
    "restore",
    TOPICS,
    Group("Trainer", "trainer.state_dir", "trainer.artifacts"),
    sections=("process", "topics", "trainer"),
)
@click.argument("folder", type=PathText())
@_SCORERS
def restore(settings: Settings, folder: Path, scorers: tuple[Path, ...]) -> None:
    """Bring a backup back, into folders and topics that hold no models yet. Nothing is overwritten.

    FOLDER: what `freshet backup` wrote. Run it before the trainer and the scorers start. A restore that was interrupted
    is finished by running it again.
    """
    from stream.leaving.restore import restore as bring_back
    from stream.trainer.config import TrainerConfig

    own_folder(settings["trainer.state_dir"])
    config = settings.read(TrainerConfig)
    done = bring_back(
        kafka_connection(settings),
        topic_plan(settings),
        folder,
        config.artifacts_url,
        config.state_dir / "decisions.json",
        scorers or (settings["scorer.state_dir"].value,),
    )
    for slot, version in done.versions.items():
        click.echo(f"{slot} is {version}")
    for path in done.files:
        click.echo(f"{path} is back")
