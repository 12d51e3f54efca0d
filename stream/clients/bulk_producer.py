"""A KafkaProducer that takes many records of one partition at once, and keeps no offsets of an aborted transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    KafkaTimeoutError,
    ProducerFencedError,
    TransactionalIdAuthorizationFailedError,
)
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from stream.clients.connection import KafkaConnection

if TYPE_CHECKING:
    from kafka.producer.transaction_manager import TransactionalRequestResult, TransactionManager

__all__ = [
    "BulkProducer",
    "TransactionStalled",
    "TransactionalProducer",
    "bulk_producer",
    "close_producer",
    "has_successor",
    "was_fenced",
]

log = logging.getLogger(__name__)

_MIB = 1024 * 1024
_COORDINATOR_SECONDS = 5.0  # waited beyond the transaction's timeout, after which the broker has aborted it


class TransactionStalled(RuntimeError):
    """It is not known whether the transaction was committed. The producer cannot be used any more: a new process asks
    the broker what was committed."""


def close_producer(producer: KafkaProducer, seconds: float) -> None:
    """Send the remaining records, for `seconds` at most, and close. When the brokers do not answer, kafka-python
    raises; this function logs a warning instead, because its callers are about to end."""
    try:
        producer.close(timeout=seconds)
    except KafkaTimeoutError:
        log.warning("what was sent last may be lost: the brokers did not take it in %g s", seconds)


class TransactionalProducer(KafkaProducer):
    def init_transactions(self) -> None:
        """Raises `TransactionalIdAuthorizationFailedError` with the id in its text, which kafka-python leaves out."""
        try:
            super().init_transactions()
        except TransactionalIdAuthorizationFailedError:
            name = self.config["transactional_id"]
            raise TransactionalIdAuthorizationFailedError(
                f"this user may not write under the transactional id {name} "
                f"(kafka-acls --add --operation Write --operation Describe --transactional-id '{name}')"
            ) from None


class BulkProducer(TransactionalProducer):
    """`send` checks topic, types, transaction and sizes of every record and takes four locks for it, which takes three
    times as long as encoding the record. Here only the first record of each batch goes through `send`; further records
    that fit into the batch are appended to it."""

    def send_all(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes]]) -> list[Any]:
        """A future for each (key, value), as `send` returns it; they stay in order. Raises what `send` raises."""
        tp, accumulator = TopicPartition(topic, partition), self._accumulator
        futures: list[Any] = []
        waiting = iter(records)
        record = next(waiting, None)
        while record is not None:
            key, value = record
            futures.append(self.send(topic, value, key=key, partition=partition))
            record = next(waiting, None)
            with accumulator._tp_lock(tp):  # without the lock, the batch may be sent while records are appended
                batches = accumulator._batches[tp]
                while batches and record is not None:
                    future = batches[-1].try_append(None, *record, [])
                    if future is None:  # it is full
                        break
                    futures.append(future)
                    record = next(waiting, None)
        return futures

    def append(self, tp: TopicPartition, key: bytes | None, value: bytes | None, headers: list[Any]) -> Any:
        """A future for the record, as `send` returns it. Raises what `send` raises."""
        accumulator = self._accumulator
        with accumulator._tp_lock(tp):  # without the lock, the batch may be sent while the record is appended
            batches = accumulator._batches[tp]
            future = batches[-1].try_append(None, key, value, headers) if batches else None
        if future is None:  # there is no batch, or it is full
            future = self.send(tp.topic, value, key=key, partition=tp.partition, headers=headers)
        return future

    def begin_transaction(self) -> None:
        # kafka-python keeps the offsets of a refused commit, and sends them with those of the next transaction, with
        # the generation of that transaction. If their partition has moved away, this would commit offsets of events
        # that no worker has merged.
        if self._transaction_manager is not None:
            self._transaction_manager._pending_txn_offset_commits.clear()
        super().begin_transaction()

    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_metadata: ConsumerGroupMetadata
    ) -> None:
        self._wait_for(self._manager.send_offsets_to_transaction(offsets, group_metadata), "its offsets")

    def commit_transaction(self) -> None:
        self._wait_for(self._manager.begin_commit(), "its commit")

    def abort_transaction(self) -> None:
        self._wait_for(self._manager.begin_abort(), "its abort")

    @property
    def _manager(self) -> TransactionManager:
        if self._transaction_manager is None:
            raise ValueError("a producer without a transactional id has no transactions")
        return self._transaction_manager

    def _wait_for(self, result: TransactionalRequestResult, what: str) -> None:
        """Wait with a limit: kafka-python waits without one, and may never return when the coordinator moves to another
        broker. Raises `TransactionStalled`."""
        self._sender.wakeup()
        seconds = self.config["transaction_timeout_ms"] / 1000 + _COORDINATOR_SECONDS
        if not result.wait(timeout_ms=seconds * 1000):
            raise TransactionStalled(f"a transaction got no answer to {what} for {seconds:.0f} s")


def bulk_producer(connection: KafkaConnection, message_bytes: int, **settings: Any) -> BulkProducer:
    """A producer for many records up to `message_bytes`, acknowledged by all replicas in sync."""
    return BulkProducer(
        **connection.kafka_python(),
        acks="all",
        metrics_enabled=False,  # the client's own metrics take time for every record, and are not read
        batch_size=_MIB // 4,
        max_request_size=message_bytes + 2 * _MIB,
        **settings,
    )


def has_successor(producer: KafkaProducer, transactional_id: str, admin: KafkaAdminClient) -> bool:
    """Whether another producer of this transactional id has begun since; the brokers then refuse the transactions of
    this one. Raises `KafkaError`."""
    manager = producer._transaction_manager
    described = admin.describe_transactions([transactional_id])[transactional_id]
    if manager is None:
        return False
    own = manager.producer_id_and_epoch
    return described.producer_id != own.producer_id or described.producer_epoch > own.epoch


def was_fenced(error: KafkaError) -> bool:
    """Whether the broker refused a transaction because another producer or member has this one's name, or because the
    transaction took too long. A producer that was fenced earlier raises a plain `KafkaError`, which gives the reason
    only in its text."""
    return isinstance(error, ProducerFencedError | FencedInstanceIdError) or "ProducerFencedError" in str(error)
