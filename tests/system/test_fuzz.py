"""Whatever is sent to `interactions`, every record ends as an event or as a dead letter, and nothing crashes."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from state import codec
from state.history import EMPTY
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories
from stream.updater.config import UpdaterConfig
from stream.updater.merging import Outcomes, apply, decode_batch
from stream.wire.records import Forget, Limits, Refresh
from stream.wire.topics import TopicPlan
from tests.support.fuzzing import NOW, fuzzed
from tests.support.updating import applied, produce, read_all, rejected, running, until

LIMITS = Limits()


@dataclass
class Record:
    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = NOW + 2_000_000
    topic: str = "interactions"
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


@pytest.mark.parametrize(
    "count",
    [50_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.faults, pytest.mark.timeout(900)])],
)
def test_every_record_is_accepted_or_rejected_and_what_is_accepted_can_be_stored_and_sent(count: int) -> None:
    records: Iterator[Record] = (Record(*pair) for pair in fuzzed(random.Random(1), count))
    accepted = refused = 0
    while batch := list(islice(records, 1000)):
        arrivals, rejections = decode_batch(batch, LIMITS)
        refused += len(rejections)
        assert all(error.detail.encode(errors="backslashreplace") for _, error in rejections)
        for user, events in arrivals.items():
            accepted += len(events)
            for event in (arrival.record for arrival in events):
                assert event.user.encode() == user and event.timestamp <= NOW + 2_000_000
                assert isinstance(event, Forget) or math.isfinite(event.weight)
            change = apply(EMPTY, events, 20, Outcomes())
            if change is not None:
                value = codec.encode(change.history)
                assert codec.decode(value) == change.history
                Refresh("event", NOW, tuple(change.new), value).encode()
    assert accepted + refused == count
    assert 0.3 < accepted / count < 0.7


@pytest.mark.kafka
def test_twenty_thousand_through_the_updater(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    records = list(fuzzed(random.Random(2), 20_000))
    with running(UpdaterConfig(tmp_path, history_items=20, checkpoint_seconds=0.5), kafka, plan) as metrics:
        produce(kafka, plan, records)
        until(lambda: applied(metrics) + rejected(metrics) >= len(records), "taking all records in", 120)
        assert applied(metrics) + rejected(metrics) == len(records)
    letters = read_all(kafka, plan.dead_letters)
    assert len(letters) == rejected(metrics)
    assert len({(dict(r.headers)["partition"], dict(r.headers)["offset"]) for r in letters}) == len(letters)
    assert {letter.value for letter in letters} <= {value for _, value in records}
    assert changelog_histories(kafka, plan.histories).keys() >= {f"u{n}" for n in range(300)}
