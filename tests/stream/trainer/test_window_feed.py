"""What the loop decided survives a restart, and scorers that recommend something else are noticed."""

import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Hidden, Ranked
from ops.metrics import TrainerMetrics
from ops.monitor.closed_loop import ClosedLoop, ClosedLoopConfig
from ops.monitor.windows import WindowConfig, WindowCounter
from state.history import History
from stream.clients.connection import KafkaConnection
from stream.trainer.loop_file import LoopFile
from stream.trainer.skew import disagreement
from stream.trainer.window_feed import WindowFeed
from stream.wire.records import Recommendation, ScoredItem
from stream.wire.topics import TopicPlan, ensure_topics
from stream.wire.windows_topic import WindowReader, WindowSender

NOW = 1_700_000_000_000


@pytest.fixture
def topic(kafka: KafkaConnection, plan: TopicPlan) -> str:
    ensure_topics(kafka, plan)
    return plan.monitor_windows


@pytest.mark.kafka
def test_windows_and_decisions_are_there_again_after_a_restart(
    kafka: KafkaConnection, topic: str, tmp_path: Path
) -> None:
    file = LoopFile(tmp_path / "new" / "decisions.json")

    def open_one() -> tuple[ClosedLoop, WindowFeed]:
        loop = ClosedLoop(ClosedLoopConfig(), TrainerMetrics(CollectorRegistry()), lambda: 1.0, file.load())
        feed = WindowFeed(loop, kafka, topic)
        feed.restore()
        return loop, feed

    sender, counter = WindowSender(kafka, topic), WindowCounter("updater", WindowConfig())
    loop, feed = open_one()
    assert loop.now_ms == 1_000  # nothing has happened yet
    counter.add("new_user_rate", [NOW], [1], 2)
    sender.send(counter, now=True)
    sender.close()
    deadline = time.monotonic() + 30
    while loop.now_ms != NOW:
        assert time.monotonic() < deadline
        feed.poll()
        time.sleep(0.05)
    loop.moved(loop.intend("promote", "m1"))
    loop.decisions.began()
    file.save(loop.decisions.state)
    feed.close()

    again, feed = open_one()
    assert again.now_ms == NOW
    assert (again.decisions.state.live, again.decisions.state.running) == ("m1", False)
    feed.close()
    (tmp_path / "new" / "decisions.json").write_text("{")
    afresh, feed = open_one()
    assert afresh.decisions.state.live == ""
    feed.close()


@pytest.mark.kafka
def test_a_window_is_sent_again_only_when_it_changed(kafka: KafkaConnection, topic: str) -> None:
    sender, counter = WindowSender(kafka, topic, every_seconds=3600), WindowCounter("w", WindowConfig())
    counter.add("new_user_rate", [NOW], [0], 2)
    sender.send(counter)
    counter.add("new_user_rate", [NOW], [0], 2)
    sender.send(counter)  # not due
    sender.send(counter, now=True)
    sender.send(counter, now=True)  # nothing new
    sender.close()
    reader = WindowReader(kafka, topic)
    assert len(reader.catch_up()) == 2
    reader.close()


class Alphabet:
    """Ranks a to z for everybody."""

    version, items = "m1", ItemIndex([chr(97 + n) for n in range(26)])

    def rank(self, histories: Histories, k: int, hidden: Hidden | None = None) -> Ranked:
        columns = np.tile(np.arange(k), (len(histories), 1))
        return Ranked(columns, -columns.astype(np.float32))


def shown(user: str, items: str, model: str = "m1", as_of: int = NOW) -> Recommendation:
    scored = tuple(ScoredItem(item, 0.0) for item in items)
    return Recommendation(user, scored, model, "control", as_of, "event", NOW)


def test_lists_that_the_trainer_would_not_give_are_counted() -> None:
    histories = {user: History(("z",), (NOW,), (1.0,)) for user in (b"same", b"swapped", b"other", b"old", b"ahead")}
    lists = [
        shown("same", "abcdefghij"),
        shown("swapped", "abcdefghkj"),  # rounding moves neighbours
        shown("other", "zyxwvutsrq"),
        shown("old", "zyxwvutsrq", model="m0"),
        shown("ahead", "zyxwvutsrq", as_of=NOW + 1),  # of a history that is not here yet
        shown("unknown", "zyxwvutsrq"),
    ]
    assert disagreement(lists, histories, Alphabet()) == (3, 1)  # type: ignore[arg-type]
    assert disagreement([], histories, Alphabet()) == (0, 0)  # type: ignore[arg-type]
