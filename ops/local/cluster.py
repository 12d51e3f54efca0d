"""Several Kafka brokers on one machine that replicate to each other, for tests that need more than one broker."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from ops.local.broker import BrokerConfig, LocalBroker, free_ports
from ops.local.kafka_node import new_cluster_id

__all__ = ["LocalCluster"]

_HOST = "127.0.0.1"


class LocalCluster:
    """`size` brokers, each also a controller of the KRaft quorum; use as a context manager.

    `brokers[n]` has node id n + 1. Each broker has its own `kill` and `start`; the cluster works while most of the
    brokers run. Internal topics have `size` replicas, of which `min_insync` must be in sync.
    """

    def __init__(
        self, size: int = 3, min_insync: int = 2, heap_mib: int = 384, properties: Mapping[str, str] | None = None
    ) -> None:
        ports = free_ports(_HOST, 2 * size)
        clients, controllers = ports[:size], ports[size:]
        voters = ",".join(f"{n + 1}@{_HOST}:{port}" for n, port in enumerate(controllers))
        cluster_id = new_cluster_id()
        replication = {
            "offsets.topic.replication.factor": str(size),
            "transaction.state.log.replication.factor": str(size),
            "transaction.state.log.min.isr": str(min_insync),
            "share.coordinator.state.topic.replication.factor": str(size),
            "share.coordinator.state.topic.min.isr": str(min_insync),
            "default.replication.factor": str(size),
            "min.insync.replicas": str(min_insync),
            "controller.quorum.voters": voters,
            "replica.lag.time.max.ms": "3000",
            "controller.quorum.election.timeout.ms": "500",
            "controller.quorum.fetch.timeout.ms": "1000",
            **(properties or {}),
        }
        self.brokers = [
            LocalBroker(
                BrokerConfig(
                    port=client,
                    controller_port=controller,
                    heap_mib=heap_mib,
                    cluster_id=cluster_id,
                    properties={**replication, "node.id": str(n + 1)},
                )
            )
            for n, (client, controller) in enumerate(zip(clients, controllers, strict=True))
        ]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def __enter__(self) -> LocalCluster:
        # All at once, because a broker is ready only when most controllers run.
        try:
            with ThreadPoolExecutor(len(self.brokers)) as pool:
                list(pool.map(LocalBroker.start, self.brokers))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            list(pool.map(LocalBroker.stop, self.brokers))
