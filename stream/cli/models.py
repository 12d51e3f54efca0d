"""`freshet model`: the models in service."""

from __future__ import annotations

import typer

from stream.cli.options import (
    Prefix,
    Servers,
    connect,
)
from stream.wire.topics import TopicPlan

model_app = typer.Typer(no_args_is_help=True, help="Look at the models in service, or go back to the previous one.")


@model_app.command("list")
def model_list(bootstrap_servers: Servers = None, prefix: Prefix = "") -> None:
    """Which model is in which slot."""
    from datetime import UTC, datetime

    from rich.table import Table

    from stream.local.terminal import output
    from stream.registry.slots import read_slots

    table = Table("slot", "version", "parent", "items", "data until (UTC)", "metrics", "address")
    for slot, a in read_slots(connect(bootstrap_servers), TopicPlan(prefix).models).items():
        until = f"{datetime.fromtimestamp(a.data_until / 1000, UTC):%Y-%m-%d %H:%M:%S}"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in a.metrics.items())
        table.add_row(slot, a.version, a.parent, str(a.items), until, metrics, a.address)
    output().print(table)


@model_app.command("rollback")
def model_rollback(bootstrap_servers: Servers = None, prefix: Prefix = "") -> None:
    """Put the previous model back into service; the one taken back is never a parent again."""
    from stream.registry.slots import announce_rollback

    back, gone = announce_rollback(connect(bootstrap_servers), TopicPlan(prefix).models)
    print(f"live is {back.version} again; {gone.version} is retired")
