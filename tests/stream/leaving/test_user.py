"""One user: all that is held, and the receipt of an erasure."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from kafka import KafkaProducer

from state.history import Entry
from stream.clients.connection import KafkaConnection
from stream.demo.audit import last_values
from stream.leaving.copies import ApiReader
from stream.leaving.folder import LeavingError
from stream.leaving.forget import forget_user
from stream.leaving.found import user_key
from stream.leaving.lineage import judge_root
from stream.leaving.user import export_user
from stream.local.pipeline import free_port
from stream.registry.artifacts import Root
from stream.wire.mapping import InputMapping
from stream.wire.topics import TopicPlan
from tests.stream.leaving.test_export import Writer, quiet
from tests.support.updating import read_all

ROOT = Path(__file__).parents[3]
NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("root", "saw"),
    [
        (Root("v3", "id", {0: 11, 1: 21}), "no"),
        (Root("v3", "id", {0: 11, 1: 20}), "yes"),  # the record at an offset of 20 was not read
        (Root("v3", "id", {0: 11}), "yes"),
        (Root("v3", "another", {0: 99, 1: 99}), "unknown"),
        (None, "unknown"),
    ],
)
def test_a_line_saw_the_user_unless_it_began_beyond_the_erasure_everywhere(root: Root | None, saw: str) -> None:
    assert judge_root(root, "id", {0: 10, 1: 20})[0] == saw


@pytest.mark.parametrize("user", ["", "x" * 513, "\ud800"])
def test_what_cannot_be_an_id_is_refused(user: str) -> None:
    with pytest.raises(LeavingError, match="a user's id"):
        user_key(user)


@pytest.mark.kafka
def test_an_export_has_what_lies_under_the_users_key(kafka: KafkaConnection, topics: TopicPlan) -> None:
    writer = Writer(kafka, topics)
    writer.history(0, "ann", Entry(NOW, "old", 1.0))
    writer.history(0, "ann", Entry(NOW, "tea", 0.5, "view"), Entry(NOW + 1, "tea", 1.0, "buy"))
    writer.history(0, "bob", Entry(NOW, "tea", 1.0))
    writer.listed(0, "ann", "pot")
    writer.listed(1, "ann", "pot")
    writer.raw(topics.recommendations, 1, "ann", None)
    writer.raw(topics.interactions, 0, "ann", b'{"user": "ann", "item": "tea"}')
    writer.raw(topics.interactions, 0, "ann", b"\xff")
    writer.raw(topics.interactions, 0, "bob", b'{"user": "bob", "item": "tea"}')
    writer.close()
    found = export_user(kafka, topics, "ann", quiet)
    json.dumps(found)
    (history,) = found["histories"]
    assert history["offset"] == 1 and history["items"] == [
        {
            "item": "tea",
            "time": NOW + 1,
            "kind": "buy",
            "strength": 1.0,
            "earlier": [{"time": NOW, "kind": "view", "strength": 0.5}],
        }
    ]
    assert [(one["partition"], one["list"]["items"][0]["item"]) for one in found["lists"]] == [(0, "pot")]
    assert [event["event"] for event in found["events"]] == [{"user": "ann", "item": "tea"}, {"base64": "/w=="}]
    assert found["dead_letters"] == [] and found["offsets"][topics.histories] == {0: 3, 1: 0}


@pytest.mark.kafka
def test_where_keys_are_no_users_events_say_whose_they_are(kafka: KafkaConnection, topics: TopicPlan) -> None:
    writer = Writer(kafka, topics)
    for user in ("ann", "bob"):
        row = {"op": "c", "source": {"ts_ms": NOW}, "after": {"user_id": user, "item_id": "tea"}}
        writer.raw(topics.interactions, 0, '{"id": 7}', json.dumps(row).encode())
    writer.close()
    mapping = InputMapping(form="debezium", key="any")
    (event,) = export_user(kafka, topics, "ann", quiet, mapping)["events"]
    assert event["event"]["after"]["user_id"] == "ann"
    assert export_user(kafka, topics, "ann", quiet)["events"] == []


@pytest.mark.kafka
def test_an_erasure_that_nobody_does_is_said_to_be_missing(kafka: KafkaConnection, topics: TopicPlan) -> None:
    writer = Writer(kafka, topics)
    writer.history(0, "ann", Entry(NOW, "tea", 1.0))
    receipt = forget_user(kafka, topics, "ann", 1.0, quiet)
    assert not receipt.complete and receipt.was_known
    assert [(place.partition, place.held, place.offset) for place in receipt.histories] == [(0, 1, None), (1, 0, None)]
    assert receipt.models.first_without is None and "learns from nothing" in receipt.models.next
    (wish,) = read_all(kafka, topics.interactions)
    assert (wish.key, wish.value, wish.offset) == (b"ann", None, receipt.wish.offset)
    assert wish.timestamp == receipt.wish.time
    writer.close()


@contextmanager
def processes(kafka: KafkaConnection, plan: TopicPlan, folder: Path, *commands: tuple[str, ...]) -> Iterator[None]:
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        for kind, *options in commands:
            command = [sys.executable, "-m", "stream.cli", kind, *options, "--prefix", plan.prefix]
            command += ["--partitions", str(plan.partitions)]
            command += [] if kind == "api" else ["--metrics-port", str(free_port())]
            output = stack.enter_context((folder / f"{kind}.log").open("ab"))
            child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
            stack.callback(child.wait, 30)
            stack.callback(child.terminate)
        yield


def until(condition: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.2)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path))
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.wait()


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_a_receipt_names_every_erasure_once_it_is_there(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, redis_url: str
) -> None:
    producer = KafkaProducer(**kafka.kafka_python())
    now_ms = int(time.time() * 1000)
    for partition, items in ((0, ["tea", "cup"]), (1, ["pot"])):  # a client that hashes otherwise wrote half of it
        for item in items:
            event = json.dumps({"user": "ann", "item": item, "timestamp": now_ms}).encode()
            producer.send(topics.interactions, event, key=b"ann", partition=partition)
    producer.close()
    state = str(tmp_path / "state")
    url = f"http://127.0.0.1:{(api := free_port())}"
    serving = ("api", "--state-dir", f"{state}/a", "--port", str(api))
    workers = (
        serving,
        ("updater", "--state-dir", f"{state}/u"),
        ("scorer", "--state-dir", f"{state}/s"),
        ("sink", redis_url),
    )
    with processes(kafka, topics, tmp_path, *workers):
        until(lambda: b"ann" in last_values(kafka, topics.recommendations), "a list")
        client = redis.Redis.from_url(redis_url)
        key = f"freshet:{topics.prefix}:rec:ann"
        until(lambda: client.exists(key), "a list in Redis")
        reader = ApiReader(url)
        until(lambda: reader.not_erased("ann", now_ms).startswith("the API has the"), "a copy in the API")
        command = ["user", "forget", "ann", "--prefix", topics.prefix, "--partitions", str(topics.partitions)]
        command += ["--redis", redis_url, "--api", url, "--receipt", str(tmp_path / "receipt.json")]
        environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
        done = subprocess.run(
            [sys.executable, "-m", "stream.cli", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not client.exists(key)
        client.close()
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt == json.loads(done.stdout) and receipt["complete"]
    assert [place["held"] for place in receipt["histories"]] == [2, 1]
    erased = {(r.partition, r.offset): r for r in read_all(kafka, topics.histories) if r.key == b"ann"}
    for place in receipt["histories"]:
        assert b"tea" not in erased[place["partition"], place["offset"]].value
    deleted = {(r.partition, r.offset) for r in read_all(kafka, topics.recommendations) if r.value is None}
    assert {(place["partition"], place["offset"]) for place in receipt["lists"]} <= deleted
    assert [(copy["what"], copy["erased"]) for copy in receipt["copies"]] == [("api", True), ("redis", True)]
    command = ["user", "receipt", str(tmp_path / "receipt.json"), "--prefix", topics.prefix]
    again = subprocess.run(
        [sys.executable, "-m", "stream.cli", *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert json.loads(again.stdout) == receipt, again.stderr
