"""`freshet broker`: a Kafka on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stream.cli.options import PathText, command
from stream.cli.settings import Settings
from stream.cli.starting import started

__all__ = ["broker"]


@command("broker", sections=("process",))
@click.option("--port", type=click.IntRange(0, 65535), default=9092, help="Port of Kafka; 0 takes a free one.")
@click.option(
    "--data-dir",
    type=PathText(),
    help="Folder of its data, kept between runs. Without it the data goes with the broker.",
)
def broker(settings: Settings, port: int, data_dir: Path | None) -> None:
    """A real single-node Apache Kafka on this machine (needs Java 17 and, the first time, Maven)."""
    from ops.local.broker import BrokerConfig, run_until_signalled

    stop = started(settings, grace_seconds=None)
    sys.exit(run_until_signalled(BrokerConfig(port=port, data_dir=data_dir), stop))
