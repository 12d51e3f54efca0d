"""The files of one Kafka node: its settings, its log configuration, its formatted storage."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from ops.local.kafka_install import BrokerError

__all__ = ["LOG4J2", "VOTERS", "format_storage", "new_cluster_id", "server_properties"]

VOTERS = "controller.quorum.voters"  # names the controllers of a cluster; a node without it is its own controller

LOG4J2 = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = OUT
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss} %p %m (%c{1})%n
"""


def server_properties(
    host: str, port: int, controller_port: int, folder: Path, overrides: Mapping[str, str]
) -> dict[str, str]:
    """Settings of a node that is broker and controller, with its data below `folder`."""
    defaults = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"{host}:{controller_port}",
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        # One node can hold only one replica of each internal topic.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "2",
        "log.cleaner.backoff.ms": "500",
        # Short, because a broker that crashed may join again only after its old session has ended.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "2000",
    }
    if VOTERS in overrides:
        del defaults["controller.quorum.bootstrap.servers"]
    return {**defaults, **overrides}


def format_storage(
    java: str,
    classpath: str,
    properties: Path,
    logging_file: Path,
    *,
    alone: bool,
    cluster_id: str,
    scram_users: Mapping[str, str],
) -> None:
    """Prepare the data folder that the file `properties` names, which KRaft requires before the first start.

    `alone`: the node is its own controller. An empty `cluster_id` means a random one. Raises `BrokerError`.
    """
    result = subprocess.run(
        [
            *(java, "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={logging_file}"),
            *("-cp", classpath, "kafka.tools.StorageTool", "format", *(["--standalone"] if alone else [])),
            *(f"--cluster-id={cluster_id or new_cluster_id()}", "-c", str(properties)),
            *(word for name, password in scram_users.items() for word in _scram(name, password)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise BrokerError(f"Kafka could not format its storage:\n{result.stdout[-1000:]}{result.stderr[-1000:]}")


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")  # it may begin with a dash


def _scram(name: str, password: str) -> tuple[str, str]:
    return "--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"
