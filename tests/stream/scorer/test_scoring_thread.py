"""What happens in the order in which it was asked for, on one thread, and whose times count."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

import stream.scorer.scoring_thread
from ops.metrics import ScorerMetrics
from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.scorer.counts_file import CountsFile
from stream.scorer.model_loader import Looked
from stream.scorer.popularity_file import PopularityFile
from stream.scorer.scoring_thread import Keeping, ScoringThread
from stream.wire.records import NewInteraction, Refresh
from tests.support.scoring import NOW, World


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def looked() -> Looked:
    return Looked()


@pytest.fixture
def thread(tmp_path: Path, registry: CollectorRegistry, looked: Looked) -> Iterator[ScoringThread]:
    world = World(tmp_path / "shown")
    windows: Any = SimpleNamespace(send=lambda windows, now: None)
    examples: Any = SimpleNamespace(send=lambda parts: None)
    pilots: Any = SimpleNamespace(send=lambda counts: None)
    metrics = ScorerMetrics(registry)
    keeping = Keeping(PopularityFile(tmp_path), CountsFile(tmp_path), windows, examples, pilots)
    made = ScoringThread(world.scoring, world.lists, keeping, metrics, torch.device("cpu"), looked)
    yield made
    made.close()


def message(partition: int, time_ms: int) -> SimpleNamespace:
    history = codec.encode(merge_entries(EMPTY, [Entry(time_ms, "a", 1.0)], 10))
    value = Refresh("event", NOW, (NewInteraction("a", time_ms, False),), history).encode()
    return SimpleNamespace(partition=partition, offset=0, key=b"u%d" % partition, value=value)


def test_the_watermark_is_the_oldest_of_the_partitions_that_are_owned(
    thread: ScoringThread, registry: CollectorRegistry
) -> None:
    def watermark() -> float | None:
        return registry.get_sample_value("freshet_stream_watermark_timestamp_seconds", {"topic": "refreshes"})

    async def work() -> None:
        await thread.call(thread.assigned, {0, 1})
        await thread.call(thread.score, [message(0, NOW + 9000), message(1, NOW), message(0, NOW + 5000)])
        await thread.call(thread.keep_house)
        assert watermark() == NOW / 1000
        await thread.call(thread.assigned, {0, 2})  # 1 moves away; of 2 nothing is known yet
        await thread.call(thread.score, [message(1, NOW + 1)])  # a batch that was under way
        await thread.call(thread.keep_house)
        assert watermark() == (NOW + 9000) / 1000

    asyncio.run(work())


def test_batches_and_assignments_that_cross_are_done_on_one_thread_one_after_the_other(thread: ScoringThread) -> None:
    async def work() -> None:
        idents = await asyncio.gather(*(thread.call(threading.get_ident) for _ in range(20)))
        assert len({*idents, threading.get_ident()}) == 2
        await asyncio.gather(
            *(thread.call(thread.assigned, set(range(n % 5))) for n in range(50)),
            *(thread.call(thread.score, [message(n % 5, NOW + n)]) for n in range(50)),
            *(thread.call(thread.keep_house) for _ in range(50)),
        )

    asyncio.run(work())


def for_model(user: bytes, live_offset: int) -> SimpleNamespace:
    history = codec.encode(merge_entries(EMPTY, [Entry(NOW, "a", 1.0)], 10))
    value = Refresh("model", NOW, (), history, live_offset).encode()
    return SimpleNamespace(partition=0, offset=0, key=user, value=value)


def test_users_who_are_sent_again_for_a_model_wait_until_it_was_loaded(thread: ScoringThread, looked: Looked) -> None:
    looked.to(6)  # another model

    async def work() -> None:
        batch = asyncio.create_task(thread.call(thread.score, [for_model(b"u", 7), message(0, NOW)]))
        assert not (await asyncio.wait([batch], timeout=0.3))[0]
        looked.to(9)  # a later announcement took its place
        assert len((await asyncio.wait_for(batch, 10)).scored.answers) == 2

    asyncio.run(work())


def test_a_model_that_never_comes_is_waited_for_once(
    thread: ScoringThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream.scorer.scoring_thread, "_MODEL_SECONDS", 0.2)

    async def work() -> None:
        for user in (b"u", b"v", b"w"):
            assert len((await thread.call(thread.score, [for_model(user, 7)])).scored.answers) == 1

    asyncio.run(work())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is not loaded: the one before answers" in caplog.text
