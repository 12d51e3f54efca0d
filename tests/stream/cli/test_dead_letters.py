"""Refused records on a real Kafka: shown, counted, mended, and sent again, each once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories
from stream.letters.mending import Mended
from stream.letters.reading import Letter, LetterError
from stream.letters.resending import Resender
from stream.updater.config import UpdaterConfig
from stream.wire.dead_letters import dead_letter
from stream.wire.partitioning import home_of
from stream.wire.records import Limits, Rejected, decode_interaction
from stream.wire.topics import TopicPlan
from tests.support.commands import Done, freshet
from tests.support.updating import applied, produce, read_all, running, until

pytestmark = pytest.mark.kafka

SECONDS = 1_764_000_000
Record = tuple[bytes | None, bytes | None]
ROOT = Path(__file__).parents[3]


class Source:
    """What the updater consumed."""

    def __init__(self, topic: str, partition: int, offset: int, record: Record) -> None:
        self.topic, self.partition, self.offset, self.timestamp = topic, partition, offset, SECONDS * 1000
        self.key, self.value = record
        self.headers = [("traceparent", b"00-%d" % offset), ("reason", b"its producer's own")]


@pytest.fixture
def refuse(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Callable[..., None]]:
    """Records as the updater refuses them."""
    producer = KafkaProducer(**kafka.kafka_python())

    def refuse(*records: Record, topic: str = topics.interactions) -> None:
        for offset, record in enumerate(records):
            source = Source(topic, offset % 2, offset, record)
            try:
                decode_interaction(*record, SECONDS * 1000 + 5000, Limits())
            except Rejected as error:
                letter = dead_letter(source, error, "updater", 2_000_000)
                producer.send(topics.dead_letters, **letter).get(timeout=10)
            else:
                raise AssertionError(f"{record} would not be refused")

    yield refuse
    producer.close()


@pytest.fixture
def run(kafka: KafkaConnection, topics: TopicPlan) -> Callable[..., Done]:
    environment = {"FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "COLUMNS": "250"}
    return lambda *arguments: freshet(
        "dead-letters", arguments[0], "--prefix", topics.prefix, *arguments[1:], environment=environment
    )


def event(user: str, timestamp: int = SECONDS, **more: object) -> Record:
    return user.encode(), json.dumps({"user": user, "item": "tea", "timestamp": timestamp, **more}).encode()


def test_letters_are_shown_with_what_is_wrong_and_counted_by_reason(
    refuse: Callable[..., None], run: Callable[..., Done]
) -> None:
    assert run("list").output == "no dead letters\n"
    assert "nothing was sent" in run("resend").refusal
    refuse(event("ann"), (b"bob", b"{broken"), event("cat"))
    shown = run("list").output
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[0].startswith("0/0  timestamp, ") and lines[0].endswith("s ago")
    assert "it looks like seconds: multiply it by 1,000" in lines[1]
    assert lines[2].endswith("interactions/0/0") and lines[3] == "key: ann"
    assert lines[5:7] == ["header traceparent: 00-0", "header reason: its producer's own"]
    assert run("list", "--last", "1").output.startswith("0/2  ")
    assert run("list", "--reason", "decode").output.startswith("0/1  decode")
    assert run("list", "--offsets", "1-2", "--partition", "0").output.startswith("0/2  ")
    assert run("list", "--until", "2020-01-01").output == "no dead letters like that\n"
    assert "0/0" in run("list", "--since", "1h").output
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in run("count").output.splitlines() if "│" in line]
    assert rows == [["timestamp", "2", "0"], ["decode", "1", "0"], ["all", "3", "0"]]


def test_mended_letters_are_sent_once_to_where_their_users_live_with_their_headers(
    refuse: Callable[..., None], run: Callable[..., Done], kafka: KafkaConnection, topics: TopicPlan
) -> None:
    users = [f"u{n}" for n in range(8)]
    refuse(*(event(user) for user in users), (b"bob", b"{broken"))
    tried = run("resend", "--time-unit", "s", "--dry-run")
    assert tried.output.splitlines()[0] == "would be sent: 8" and not read_all(kafka, topics.interactions)
    assert tried.exit_code == 2 and "would be refused again, decode: 1; the first is 0/8: " in tried.output
    done = run("resend", "--time-unit", "s", "--offsets", "0-2")
    assert (done.exit_code, done.output) == (0, "sent again: 3\n")
    done = run("resend", "--time-unit", "s", "--reason", "timestamp")
    assert done.output == "sent again: 5\nsent again before: 3 (--again sends them once more)\n"
    sent = read_all(kafka, topics.interactions)
    assert sorted(record.key.decode() for record in sent) == users
    for record in sent:
        assert json.loads(record.value)["timestamp"] == SECONDS * 1000
        assert record.partition == home_of(record.key, 2)
        letter = users.index(record.key.decode())
        assert record.headers == [
            ("traceparent", b"00-%d" % letter),
            ("reason", b"its producer's own"),
            ("resent-from", b"0/%d" % letter),
        ]
    assert run("resend", "--reason", "timestamp", "--time-unit", "s").output.startswith("sent again: 0\n")
    assert run("resend", "--reason", "timestamp", "--time-unit", "s", "--offsets", "0", "--again").exit_code == 0
    assert len(read_all(kafka, topics.interactions)) == 9
    assert "sent again" in run("list", "--offsets", "0").output.splitlines()[0]


def test_letters_are_edited_in_a_file(
    refuse: Callable[..., None], run: Callable[..., Done], kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    refuse((b"bob", b"{'user': 'bob'}"), event("ann"), (b"\xff", None))
    file = tmp_path / "letters.jsonl"
    assert run("save", str(file)).output.startswith("3 letters in ")
    assert "is there already" in run("save", str(file)).refusal
    assert "nothing was saved" in run("save", str(tmp_path / "none"), "--reason", "oversize").refusal
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["value"] for line in lines] == [
        "{'user': 'bob'}",
        {"user": "ann", "item": "tea", "timestamp": SECONDS},
        None,
    ]
    lines[0]["value"] = {"user": "bob", "item": "milk", "timestamp": SECONDS * 1000}
    lines[2] |= {"key": "eve", "value": None}
    file.write_text("\n".join(json.dumps(line) for line in (lines[0], lines[2], {**lines[0], "letter": "0/77"})))
    assert "leave the options" in run("resend", str(file), "--time-unit", "s").errors
    done = run("resend", str(file))
    assert done.output == "sent again: 2\nin the file and no letters any more, or left out by the filters: 1\n"
    sent = {record.key: record.value for record in read_all(kafka, topics.interactions)}
    assert sent == {b"bob": b'{"user":"bob","item":"milk","timestamp":%d}' % (SECONDS * 1000), b"eve": None}


def test_letters_of_other_topics_are_left_alone(
    refuse: Callable[..., None], run: Callable[..., Done], topics: TopicPlan
) -> None:
    refuse(event("ann"), topic=topics.refreshes)
    assert run("resend", "--time-unit", "s").output == (
        "sent again: 0\nleft alone, because they came from another topic: 1\n"
    )


def test_a_kill_before_the_commit_sends_nothing_and_the_next_run_sends_all_once(
    refuse: Callable[..., None], run: Callable[..., Done], kafka: KafkaConnection, topics: TopicPlan
) -> None:
    refuse(*(event(f"u{n}") for n in range(5)))
    command = [sys.executable, "tests/support/letter_worker.py", kafka.bootstrap_servers, topics.prefix, "2"]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert run("resend", "--time-unit", "s").output == "sent again: 5\n"
    assert len(read_all(kafka, topics.interactions)) == 5


def test_of_two_that_send_at_the_same_time_the_first_is_refused(
    refuse: Callable[..., None], run: Callable[..., Done], kafka: KafkaConnection, topics: TopicPlan
) -> None:
    refuse(event("ann"))
    (letter,) = read_all(kafka, topics.dead_letters)
    with Resender(kafka, topics) as first:
        assert run("resend", "--time-unit", "s").output == "sent again: 1\n"
        with pytest.raises(LetterError, match="another process began"):
            first.send([(Letter.of(letter), Mended(b"ann", event("ann", SECONDS * 1000)[1]))])
    assert len(read_all(kafka, topics.interactions)) == 1


def test_what_an_updater_refused_is_in_a_history_once_it_is_mended(
    run: Callable[..., Done], kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, topics) as metrics:
        produce(kafka, topics, [event("ann"), event("ann", SECONDS * 1000 + 5, item="cups")])
        until(lambda: len(read_all(kafka, topics.dead_letters)) == 1, "the dead letter")
        assert run("resend", "--time-unit", "s").output == "sent again: 1\n"
        until(lambda: applied(metrics) == 2, "both events")
    assert changelog_histories(kafka, topics.histories)["ann"].items == ("cups", "tea")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--since", "yesterday"), "expected a time"),
        (("list", "--offsets", "9-3"), "--offsets"),
        (("resend", "--rename", "a"), "--rename"),
        (("resend", "--put", "=1"), "--put"),
        (("resend", "/nothing.jsonl"), "/nothing.jsonl: No such file"),
    ],
)
def test_what_a_person_can_put_right_is_one_line(
    arguments: tuple[str, ...], said: str, run: Callable[..., Done]
) -> None:
    assert said in run(*arguments).refusal


def test_a_prefix_without_letters_is_one_line(kafka: KafkaConnection, prefix: str) -> None:
    began = time.monotonic()
    environment = {"FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    for command in ("list", "resend", "count"):
        done = freshet("dead-letters", command, "--prefix", f"no-{prefix}", environment=environment)
        assert "does not exist; is the --prefix right?" in done.refusal
    assert time.monotonic() - began < 30
