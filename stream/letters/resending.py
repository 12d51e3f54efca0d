"""Sends letters again to `interactions`, each once.

A batch is one transaction: the events, and a record on `layout` that says which letters were sent. A crash before the
commit leaves neither, a crash after it leaves both. A process that begins to send first fences any other that is still
sending, and then reads the records on `layout`: two processes at the same time cannot both send a letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType

from kafka.errors import KafkaError

from stream.clients.admin import admin_client, partition_count
from stream.clients.bulk_producer import TransactionalProducer, close_producer, was_fenced
from stream.clients.connection import KafkaConnection
from stream.letters.mending import Changes, Judge, Mended, mend
from stream.letters.reading import Letter, LetterError
from stream.letters.resent import Resent, read_resent
from stream.wire.partitioning import home_of
from stream.wire.records import Rejected
from stream.wire.topics import TopicPlan

__all__ = ["FROM", "Account", "Resender", "resend"]

FROM = "resent-from"  # header of an event that was sent again: partition/offset of its letter
_BATCH = 500
_TRANSACTION_MS = 60_000
_ACKNOWLEDGED_SECONDS = 30.0
_MIB = 1024 * 1024


@dataclass
class Account:
    """The numbers of letters by result."""

    sent: int = 0
    before: int = 0  # sent again earlier
    elsewhere: int = 0  # came from another topic
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    first_refused: dict[str, tuple[Letter, str]] = field(default_factory=dict)  # letter and detail by reason

    def refuse(self, letter: Letter, error: Rejected) -> None:
        self.refused[error.reason] += 1
        self.first_refused.setdefault(error.reason, (letter, error.detail))


class Resender:
    """Sends letters, and stores which ones were sent. Raises `LetterError` when another `Resender` has begun since."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan) -> None:
        self._plan = plan
        with admin_client(connection) as admin:
            self._partitions = partition_count(admin, plan.interactions)
        if not self._partitions:
            raise LetterError(f"topic {plan.interactions} does not exist; is the --prefix right?")
        self._producer = TransactionalProducer(
            **connection.kafka_python(),
            acks="all",
            max_request_size=plan.message_bytes + 2 * _MIB,
            request_timeout_ms=_TRANSACTION_MS // 2,
            delivery_timeout_ms=_TRANSACTION_MS,
            transactional_id=f"{plan.dead_letters}-operator",
            transaction_timeout_ms=_TRANSACTION_MS,
            metrics_enabled=False,
        )
        try:
            # Before `layout` is read: a predecessor's transaction is then committed or aborted, and stays so.
            self._producer.init_transactions()
            self.resent: Resent = read_resent(connection, plan)
        except BaseException:
            close_producer(self._producer, 2)
            raise

    def send(self, batch: Sequence[tuple[Letter, Mended]], crash: Callable[[], None] = lambda: None) -> None:
        """Send a batch in one transaction. `crash` is called between sending the records and the commit. Raises
        `KafkaError`."""
        self.resent.add(letter for letter, _ in batch)
        producer, plan = self._producer, self._plan
        try:
            producer.begin_transaction()
            futures = [
                producer.send(
                    plan.interactions,
                    mended.value,
                    key=mended.key,
                    partition=home_of(mended.key or b"", self._partitions),
                    headers=_headers(letter),
                )
                for letter, mended in batch
            ]
            futures += [producer.send(plan.layout, value, key=key, partition=0) for key, value in self.resent.records()]
            producer.flush(timeout=_ACKNOWLEDGED_SECONDS)
            for future in futures:  # flush does not raise for a record that failed
                future.get(timeout=_ACKNOWLEDGED_SECONDS)
            crash()
            producer.commit_transaction()
        except KafkaError as error:
            if was_fenced(error):
                raise LetterError(
                    "another process began to send dead letters again: wait for it, then run this anew"
                ) from None
            raise

    def close(self) -> None:
        close_producer(self._producer, 3)

    def __enter__(self) -> Resender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _headers(letter: Letter) -> list[tuple[str, bytes]]:
    """The headers of the record's producer, and the name of the letter; of a record that was refused twice, only the
    name of the last letter."""
    return [*(header for header in letter.headers if header[0] != FROM), (FROM, letter.name.encode())]


def resend(
    found: Iterable[Letter],
    plan: TopicPlan,
    changes: Changes,
    given: Mapping[str, Mended],
    judge: Judge,
    resent: Resent,
    send: Callable[[Sequence[tuple[Letter, Mended]]], None],
    again: bool = False,
) -> Account:
    """Correct letters and send those that the updater will accept. `send` may do nothing, for a trial. With `again`,
    letters that were sent before are sent once more."""
    account = Account()
    fitting = _fitting(found, plan, changes, given, judge, resent, again, account)
    while batch := list(islice(fitting, _BATCH)):
        send(batch)
        account.sent += len(batch)
    return account


def _fitting(
    found: Iterable[Letter],
    plan: TopicPlan,
    changes: Changes,
    given: Mapping[str, Mended],
    judge: Judge,
    resent: Resent,
    again: bool,
    account: Account,
) -> Iterator[tuple[Letter, Mended]]:
    for letter in found:
        if letter.topic not in (plan.interactions, plan.routed):
            account.elsewhere += 1
        elif letter in resent and not again:
            account.before += 1
        else:
            try:
                yield letter, mend(letter, changes, given.get(letter.name), judge)
            except Rejected as error:
                account.refuse(letter, error)
