"""Everybody's list of a whole run is made again: at its end, and at a moment that was drawn."""

import json
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaProducer

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.sources.simulate import World, WorldConfig
from stream.wire.records import Interaction, Recommendation
from stream.wire.topics import TopicPlan
from tests.support.commands import freshet as command
from tests.support.whole import freshet

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.timeout(1800)]

USERS, EVENTS, PER_SECOND = 2_000, 15_000, 300
# As in the demo: enough for a model that is above popularity.
LEARNING = (
    *("--round-seconds", "15", "--first-users", "50", "--first-interactions", "1500", "--first-epochs", "20"),
    *("--first-updates", "200", "--many-signals", "9", "--canary-share", "0"),
)


def newest_lists(kafka: KafkaConnection, plan: TopicPlan) -> dict[str, int]:
    """By user: the newest event that the list knows."""
    found: dict[str, int] = {}
    with TopicReader(kafka, poll_records=5_000) as reader:
        reader.assign(reader.partitions(plan.recommendations))
        reader.to_beginning()
        for record in reader.read_to_end():
            if record.value is not None:
                listed = msgspec.json.decode(record.value, type=Recommendation)
                found[listed.user] = listed.as_of
    return found


def outcomes(kafka: KafkaConnection, plan: TopicPlan, folder: Path, *arguments: str) -> tuple[int, list[dict]]:
    done = command(
        *("reproduce", "--all", "--json", "--prefix", plan.prefix, "--journals", str(folder), "--device", "cpu"),
        *arguments,
        environment={"FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
    )
    return done.exit_code, json.loads(done.output)


def test_every_list_of_a_run_is_made_again(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    world, newest, moments = World(WorldConfig(users=USERS, launch_events=EVENTS // 2), rng), dict[str, int](), []
    with freshet(tmp_path, kafka, plan, ("--set", "trainer.keep_versions=1000"), LEARNING) as running:
        producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5)

        def send(user: int, item: int) -> None:
            now_ms, name = int(time.time() * 1000), f"u{user}"
            sent = Interaction(name, f"i{item}", now_ms, event="view")
            producer.send(plan.interactions, msgspec.json.encode(sent), key=name.encode())
            newest[name] = now_ms
            moments.append(now_ms)
            time.sleep(1 / PER_SECOND)

        def promoted() -> bool:
            return running.total("freshet_model_loaded_timestamp_seconds", slot="live") > 0

        events = [world.event() for _ in range(EVENTS)]
        for event in events[: 2 * EVENTS // 3]:
            send(event.user, event.item)
        running.until(promoted, "a model", seconds=600)
        for event in events[2 * EVENTS // 3 :]:
            send(event.user, event.item)
        for user in range(USERS):
            if f"u{user}" not in newest:
                send(user, events[user].item)
        producer.close()

        def answered() -> bool:
            lists = newest_lists(kafka, plan)
            return all(lists.get(user, -1) >= at_ms for user, at_ms in newest.items())

        running.until(answered, "everybody's newest list", seconds=300)
    assert len(newest) == USERS
    at_ms = moments[int(rng.integers(EVENTS // 4, EVENTS))]
    for arguments, least in (((), len(newest)), (("--at", str(at_ms)), len(newest) // 3)):
        code, found = outcomes(kafka, plan, tmp_path, *arguments)
        others = [one for one in found if one["verdict"] != "same"]
        assert (code, others[:3]) == (0, [])
        assert len(found) >= least
        assert max(one["largest_difference"] for one in found) <= 1e-6
        scored = sorted({one["parts"]["scored"] for one in found})
        print(f"{len(found):,} lists are the same, made again {' / '.join(scored)}")
