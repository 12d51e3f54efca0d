"""`freshet model`: the models in service."""

from __future__ import annotations

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import KAFKA, command
from stream.cli.settings import Settings
from stream.cli.starting import existing_topic, topic_plan

__all__ = ["model"]


@click.group("model")
def model() -> None:
    """Show the models in service, or go back to the previous one."""


@command("list", KAFKA, sections=("topics",))
def model_list(settings: Settings) -> None:
    """Show which model is in which slot."""
    from datetime import UTC, datetime

    from rich.table import Table

    from stream.local.terminal import output
    from stream.registry.slots import read_slots

    connection = kafka_connection(settings)
    topic = existing_topic(connection, topic_plan(settings).models)
    table = Table("slot", "version", "parent", "items", "data until (UTC)", "metrics", "address")
    for slot, a in read_slots(connection, topic).items():
        until = f"{datetime.fromtimestamp(a.data_until / 1000, UTC):%Y-%m-%d %H:%M:%S}"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in a.metrics.items())
        table.add_row(slot, a.version, a.parent, str(a.items), until, metrics, a.address)
    output().print(table)


@command("rollback", KAFKA, sections=("topics",))
def model_rollback(settings: Settings) -> None:
    """Put the previous model back into service; the one that leaves is never a parent again."""
    from stream.registry.slots import announce_rollback

    connection = kafka_connection(settings)
    back, gone = announce_rollback(connection, existing_topic(connection, topic_plan(settings).models))
    click.echo(f"live is {back.version} again; {gone.version} is retired")


model.add_command(model_list)
model.add_command(model_rollback)
