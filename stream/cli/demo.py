"""`freshet demo`."""

from __future__ import annotations

import sys

from stream.cli.kafka_settings import kafka_environment
from stream.cli.options import Group, Renamed, command
from stream.cli.settings import Settings
from stream.cli.sources import LOG

__all__ = ["demo"]


@command(
    "demo",
    Group(
        "Demo",
        "demo.log",
        "demo.seconds",
        Renamed("demo.events_per_second", "--rate"),
        "demo.seed",
    ),
    LOG,
    sections=("process", "demo", "log"),
)
def demo(settings: Settings) -> None:
    """Everything at once: Kafka, all processes and a stream of events, watched live; ends by itself with a summary.

    With a Kafka given (FRESHET_BOOTSTRAP_SERVERS, FRESHET_KAFKA_CONFIG) it runs there, on topics of its own.
    """
    from rich.console import Console

    from stream.demo.config import DemoConfig
    from stream.demo.report import print_report
    from stream.demo.run import Demo
    from stream.process import prepare_process
    from stream.sources.replay import ReadingStopped

    level = settings["process.log_level"].value
    stop = prepare_process("warning" if level == "info" else level, grace_seconds=None)  # the screen shows the rest
    config = settings.read(DemoConfig)
    try:
        report = Demo(config, Console(), kafka_environment(settings), settings.forwarded()).run(stop)
    except ReadingStopped:
        sys.exit(130)
    print_report(report, print)
    sys.exit(1 if report.problems() else 0)
