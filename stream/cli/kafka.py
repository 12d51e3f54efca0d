"""`freshet broker`: a Kafka on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import (
    log_level,
)


def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9092,
    data_dir: Annotated[Path | None, typer.Option(help="Kept between runs; else temporary.")] = None,
) -> None:
    """A real single-node Apache Kafka on this machine (needs Java 17 and, the first time, Maven)."""
    from ops.local.broker import BrokerConfig, run_until_signalled
    from stream.process import prepare_process

    stop = prepare_process(log_level(), grace_seconds=None)
    sys.exit(run_until_signalled(BrokerConfig(port=port, data_dir=data_dir), stop))
