"""`freshet sink`: copies lists to a store from which services read them."""

from __future__ import annotations

from dataclasses import replace

import click

from stream.cli.kafka_settings import kafka_connection
from stream.cli.options import TOPICS, Group, Renamed, command
from stream.cli.settings import Settings
from stream.cli.starting import served_pages, started, topic_plan

__all__ = ["sink"]


@command(
    "sink",
    TOPICS,
    Group("Sink", "sink.namespace", "sink.expire_seconds", "sink.batch_records", "sink.session_seconds"),
    Group("Metrics", Renamed("metrics.host", "--metrics-host"), Renamed("metrics.sink_port", "--metrics-port")),
    sections=("process", "topics", "metrics", "sink"),
)
@click.argument("url", required=False)
def sink(settings: Settings, url: str | None) -> None:
    """Every user's newest list in Redis, deletions included; goes on where it was, also after a crash of either.

    URL: redis://host:port/database, or rediss:// with TLS; a password is read from FRESHET_REDIS_PASSWORD. The list of
    ann lies under freshet:rec:ann, or freshet:PREFIX:rec:ann when topics have a prefix. Several sinks share the users.
    """
    from ops.metrics import SinkMetrics
    from stream.process import end_process
    from stream.sinks.config import SinkConfig
    from stream.sinks.follow import run_sink

    config = settings.read(SinkConfig)
    if url is not None:
        config = replace(config, url=url)
    stop = started(settings)
    with served_pages(settings, "sink") as (registry, health):
        metrics = SinkMetrics(registry)
        run_sink(config, kafka_connection(settings), topic_plan(settings), settings.environment, metrics, stop, health)
    end_process(0)
