"""A pipeline of release 0.1.0 was stopped; today's processes start on its folders and topics, in both orders, while
events go on. Histories equal the reference merge in all that the last release kept, nobody loses a list, and no store
begins again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from kafka import KafkaProducer

from state.history import History
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import (
    changelog_histories,
    last_values,
    reference_of_topic,
    stored_histories,
)
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan
from tests.support.last_release import HISTORY_ITEMS, PARTITIONS, bring_back, last_event_ms

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
NEW_USER = "born-today"


class Worker:
    """A process of today; `lines` are what it logged."""

    def __init__(self, kind: str, kafka: KafkaConnection, plan: TopicPlan, folder: Path, *options: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "stream.cli", kind, "--prefix", plan.prefix, "--partitions", str(PARTITIONS)),
                *("--state-dir", str(folder / kind), "--metrics-port", "0", *options),
            ],
            cwd=ROOT,
            env={**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def said(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            assert self.process.stdout is not None
            self.process.stdout.close()


def until(condition: Callable[[], object], what: str, *workers: Worker, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        logged = "\n".join(line for worker in workers for line in worker.lines[-30:])
        assert time.monotonic() < deadline, f"{what} did not happen\n{logged}"
        time.sleep(0.2)


@contextmanager
def events_going_on(kafka: KafkaConnection, plan: TopicPlan, after_ms: int) -> Iterator[None]:
    """Users of before and a new one, 20 events a second."""
    stop = threading.Event()

    def send() -> None:
        producer, count = KafkaProducer(**kafka.kafka_python()), 0
        while not stop.is_set() or count < 20:  # 20 a second at most
            user = NEW_USER if count % 5 == 0 else f"u{count % 7}"
            event = {"user": user, "item": f"i{count % 16}", "timestamp": after_ms + count, "event": "view"}
            key = user.encode()
            partition = home_of(key, PARTITIONS)
            producer.send(plan.interactions, json.dumps(event).encode(), key=key, partition=partition)
            count += 1
            time.sleep(0.05)
        producer.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def known(histories: dict[str, History]) -> dict[str, tuple]:
    """What a history of the last release knows: not what left it, nor earlier interactions with an item."""
    return {user: (h.forgotten_ms, h.items, h.times_ms, h.strengths) for user, h in histories.items()}


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.parametrize("order", [("updater", "scorer"), ("scorer", "updater")], ids=" then ".join)
def test_todays_processes_go_on_where_the_last_release_stopped(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, order: tuple[str, str]
) -> None:
    recorded = bring_back(kafka, plan, tmp_path, unanswered=5)
    listed = set(last_values(kafka, plan.recommendations))
    assert len(listed) == 24
    options = {"updater": ("--history-items", str(HISTORY_ITEMS)), "scorer": ()}
    serving = {"updater": "caught up at offset", "scorer": "live model is"}
    workers: dict[str, Worker] = {}
    with ExitStack() as running:
        running.enter_context(events_going_on(kafka, plan, last_event_ms(recorded) + 1))
        for kind in order:
            workers[kind] = Worker(kind, kafka, plan, tmp_path, *options[kind])
            running.callback(workers[kind].stop)
            until(partial(workers[kind].said, serving[kind]), f"the {kind} serving", workers[kind])
    with ExitStack() as running:  # the events have ended: what they lead to is known
        for kind in order:
            workers[kind] = Worker(kind, kafka, plan, tmp_path, *options[kind])
            running.callback(workers[kind].stop)
        expected = reference_of_topic(kafka, plan.interactions, HISTORY_ITEMS)
        both = tuple(workers.values())
        until(lambda: known(changelog_histories(kafka, plan.histories)) == known(expected), "taking all in", *both)

        def answered() -> bool:
            lists = {user: json.loads(value) for user, value in last_values(kafka, plan.recommendations).items()}
            assert listed <= lists.keys()
            return {user.decode(): found["as_of"] for user, found in lists.items()} == {
                user: history.newest_ms for user, history in expected.items()
            }

        until(answered, "a list for everybody's newest event", *both)
    assert NEW_USER in expected and len(expected) == 25
    with admin_client(kafka) as admin:
        found = stored_histories(admin, plan.histories, [tmp_path / "updater" / "histories"])
    assert known(found) == known(expected)
    assert not any(workers["updater"].said(words) for words in ("rebuilding", "from the beginning"))


def test_the_trainer_goes_on_with_its_view_and_its_model(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    bring_back(kafka, plan, tmp_path)
    trainer = Worker("trainer", kafka, plan, tmp_path, "--threads", "1")
    try:
        until(lambda: trainer.said("live is v1-"), "starting", trainer)
        until(lambda: b"trending" in last_values(kafka, plan.item_lists), "counting what was stored before", trainer)
        until(lambda: b"similar/i3" in last_values(kafka, plan.item_lists), "lists of the old model", trainer)
    finally:
        trainer.stop()
    assert not trainer.said("rebuilding") and not trainer.said("from the beginning")
    trending = json.loads(last_values(kafka, plan.item_lists)[b"trending"])
    assert len(trending["items"]) == 14
