"""Options that several commands share, and what they become."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from ops.monitor.windows import WindowConfig
from stream.clients.connection import KafkaConnection
from stream.updater.routing import Repartition
from stream.wire.topics import TopicPlan

_log_level = "info"

Servers = Annotated[
    str | None,
    typer.Option(envvar="FRESHET_BOOTSTRAP_SERVERS", help="Kafka, host:port[,host:port]. Security: see the README."),
]
Prefix = Annotated[str, typer.Option(help="Before every topic and group name; keeps several Freshets apart.")]
Partitions = Annotated[int, typer.Option(min=1, help="Of interactions, histories, refreshes and recommendations.")]
Replication = Annotated[int, typer.Option(min=1, help="Copies of topics that Freshet creates.")]
StateDir = Annotated[Path, typer.Option(help="Folder of this process's local state. One process, one folder.")]
MetricsPort = Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 takes a free one.")]
Device = Annotated[str | None, typer.Option(envvar="FRESHET_DEVICE", help="cpu, cuda, cuda:1, ...; CUDA when there.")]
Repartitioning = Annotated[
    str, typer.Option(help="strict: events in another partition than their user's, by murmur2, are sent there; or off.")
]
StatusPort = Annotated[int, typer.Option(min=0, max=65535, help="Of the status page on this machine; 0: any free one.")]
WindowSeconds = Annotated[
    float, typer.Option(min=1, help="Event time that is judged together for drift; alike in all processes.")
]
MetricsHost = Annotated[str, typer.Option(help="Where /metrics listens.")]


def log_level() -> str:
    """What `freshet --log-level` asked for, in lower case."""
    return _log_level


def set_log_level(level: str) -> None:
    global _log_level
    if level.lower() not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"{level!r} is none of debug, info, warning, error")
    _log_level = level.lower()


def connect(servers: str | None) -> KafkaConnection:
    return KafkaConnection.from_environment(os.environ, servers)


def ensured(connection: KafkaConnection, plan: TopicPlan) -> TopicPlan:
    from stream.wire.topics import ensure_topics

    ensure_topics(connection, plan)
    return plan


def repartitioning(value: str) -> Repartition:
    if value not in get_args(Repartition):
        raise typer.BadParameter(f"{value!r} is none of {', '.join(get_args(Repartition))}", param_hint="--repartition")
    return cast(Repartition, value)


def windows_of(seconds: float) -> WindowConfig:
    """A fifteenth of a window waits for late events: a minute of a quarter of an hour."""
    return WindowConfig(int(seconds * 1000), int(seconds * 1000 / 15))


def name_or_position(name: str | None) -> str | int | None:
    return int(name) if name is not None and name.isdigit() else name


def kafka_is_given(servers: str | None) -> bool:
    return KafkaConnection.is_given(os.environ, servers)
