"""An export has every history and list as they were at the offsets it names, and the queries of the page run."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from kafka import KafkaProducer

from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.clients.connection import KafkaConnection
from stream.leaving.export import export
from stream.leaving.folder import LeavingError, filled_folder
from stream.wire.topics import TopicPlan

ROOT = Path(__file__).parents[3]
NOW = 1_700_000_000_000


class Writer:
    """Writes what updaters and scorers write."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan) -> None:
        self._producer, self._plan = KafkaProducer(**kafka.kafka_python()), plan

    def history(self, partition: int, user: str, *entries: Entry) -> None:
        value = codec.encode(merge_entries(EMPTY, entries, 10)) if entries else None
        self.raw(self._plan.histories, partition, user, value)

    def listed(self, partition: int, user: str, *items: str) -> None:
        scored = [{"item": item, "score": 1 / place} for place, item in enumerate(items, 1)]
        value = {"user": user, "items": scored, "model": "v1", "variant": "control", "as_of": NOW}
        value |= {"reason": "event", "published": NOW + 5}
        self.raw(self._plan.recommendations, partition, user, json.dumps(value).encode())

    def raw(self, topic: str, partition: int, user: str, value: bytes | None) -> None:
        self._producer.send(topic, value, key=user.encode(), partition=partition).get(timeout=10)

    def close(self) -> None:
        self._producer.close()


def fill(writer: Writer) -> None:
    writer.history(0, "ann", Entry(NOW, "old", 1.0, "view"))
    writer.history(0, "ann", Entry(NOW, "tea", 0.25, "view"), Entry(NOW + 9, "tea", 1.0, "buy"), Entry(NOW, "cup", 2.0))
    writer.history(1, "bob", Entry(NOW + 1, "tea", 1.0, "buy"))
    writer.history(1, "gone", Entry(NOW, "tea", 1.0))
    writer.history(1, "gone")
    writer.raw(writer._plan.histories, 1, "mallory", b"\x01no history")
    writer.listed(0, "ann", "old")
    writer.listed(0, "ann", "pot", "tea")
    writer.listed(1, "bob", "tea", "pot")
    writer.raw(writer._plan.recommendations, 1, "mallory", b"{}")


def quiet(topic: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def query(folder: Path, sql: str) -> list[tuple]:
    found = duckdb.sql(sql.replace("freshet-data", str(folder)))
    assert found is not None
    return found.fetchall()


def histories(folder: Path) -> list[tuple]:
    columns = "user, item, epoch_ms(time), kind, strength, len(earlier), partition"
    sql = f"SELECT {columns} FROM 'freshet-data/histories/*.parquet'"
    return query(folder, sql + " ORDER BY ALL")


EXPECTED = [
    ("ann", "cup", NOW, "", 2.0, 0, 0),
    ("ann", "tea", NOW + 9, "buy", 1.0, 1, 0),
    ("bob", "tea", NOW + 1, "buy", 1.0, 0, 1),
]


@pytest.mark.kafka
def test_an_export_is_what_the_topics_held_at_its_offsets(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    writer = Writer(kafka, topics)
    fill(writer)
    done = export(kafka, topics, tmp_path / "all", quiet)
    assert histories(tmp_path / "all") == EXPECTED
    lists = query(tmp_path / "all", "SELECT user, place, item, score FROM 'freshet-data/lists/*.parquet' ORDER BY ALL")
    assert lists == [("ann", 1, "pot", 1.0), ("ann", 2, "tea", 0.5), ("bob", 1, "tea", 1.0), ("bob", 2, "pot", 0.5)]
    assert [(p.next_offset, p.users, p.rows, p.unreadable) for p in done.histories.partitions] == [
        (2, 1, 2, 0),
        (4, 1, 1, 1),
    ]
    contents = json.loads((tmp_path / "all" / "export.json").read_text())
    assert [p["next_offset"] for p in contents["lists"]["partitions"]] == [2, 2]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["export.json", "histories", "lists"]

    # the three queries of the page
    most, before, offsets = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "leaving.md").read_text(), re.DOTALL)
    assert query(tmp_path / "all", most) == [("pot", 2, 1), ("tea", 2, 1)]
    assert query(tmp_path / "all", before) == [("buy", 2)]
    found = [(key, value) for _, key, value in query(tmp_path / "all", offsets)]
    assert [value for key, value in found if key == "freshet.next_offset"] == ["2", "4"]

    with pytest.raises(LeavingError, match=r"is not empty, it holds export\.json"):
        export(kafka, topics, tmp_path / "all", quiet)
    writer.close()


@pytest.mark.kafka
def test_what_is_written_meanwhile_is_not_in_it_unless_somebody_new_was(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    """A key that is only known from beyond the end may have been below it when compaction came, so the offset moves."""
    writer = Writer(kafka, topics)
    fill(writer)
    wrote: list[str] = []

    def known(topic: str, done: int, total: int) -> None:
        if not wrote and done == total:
            wrote.append(topic)
            writer.history(0, "ann", Entry(NOW + 99, "late", 1.0))

    export(kafka, topics, tmp_path / "known", known)
    assert wrote and histories(tmp_path / "known") == EXPECTED

    def unknown(topic: str, done: int, total: int) -> None:
        if len(wrote) == 1 and done == total:
            wrote.append(topic)
            writer.history(1, "cem", Entry(NOW, "new", 1.0))

    done = export(kafka, topics, tmp_path / "unknown", unknown)
    assert [row[:2] for row in histories(tmp_path / "unknown")] == [("ann", "late"), ("bob", "tea"), ("cem", "new")]
    assert [p.next_offset for p in done.histories.partitions] == [3, 5]
    writer.close()


@pytest.mark.kafka
def test_an_export_ends_although_new_users_come_all_the_time(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    writer = Writer(kafka, topics)
    fill(writer)
    came: list[str] = []

    def crowd(topic: str, done: int, total: int) -> None:
        if topic == topics.histories and done == total:
            came.append(f"new{len(came)}")
            writer.history(0, came[-1], Entry(NOW, "tea", 1.0))

    done = export(kafka, topics, tmp_path / "crowd", crowd)
    users = {row[0] for row in histories(tmp_path / "crowd")}
    assert len(came) > 2 and users == {"ann", "bob", *came[:-1]}
    assert done.histories.partitions[0].next_offset == 2 + len(came) - 1
    writer.close()


@pytest.mark.kafka
def test_a_topic_that_is_not_there_is_named_and_nothing_is_left(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    with pytest.raises(LeavingError, match=f"no topic {plan.histories}"):
        export(kafka, plan, tmp_path / "new", quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_filled_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with filled_folder(tmp_path / "whole", "z-last") as partial:
        (partial / "z-last").write_text("contents")
        (partial / "inner").mkdir()
        (partial / "inner" / "a").write_text("a")
        assert [path.name for path in (tmp_path / "whole").iterdir()] == [".partial"]
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["inner", "z-last"]
    with pytest.raises(KeyError), filled_folder(tmp_path / "broken", "contents") as partial:
        (partial / "contents").write_text("half")
        raise KeyError
    assert not (tmp_path / "broken").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from stream.leaving.folder import filled_folder

folder, point = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename

def die_after(path, target):
    rename(path, target)
    os.kill(os.getpid(), signal.SIGKILL)

Path.rename = die_after
with filled_folder(folder, "contents") as partial:
    for name in ("contents", "data"):
        (partial / name).write_text(name)
    if point == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("point", "left"), [("writing", [".partial"]), ("renaming", [".partial", "data"])])
def test_whoever_finds_the_contents_finds_all_of_it_whatever_died(tmp_path: Path, point: str, left: list[str]) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "x"), point])
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == left
    with pytest.raises(LeavingError, match="left unfinished"), filled_folder(tmp_path / "x", "contents"):
        pass


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LeavingError, match=r"cannot be filled: .*No space left"), filled_folder(tmp_path / "x", "c"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_another_run_left_is_named(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    with pytest.raises(LeavingError, match="left unfinished"), filled_folder(tmp_path, "contents"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(LeavingError, match="name another folder"), filled_folder(tmp_path / "file" / "x", "contents"):
        pass


@pytest.mark.kafka
def test_a_large_topic_is_read_in_batches(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=20)
    value = codec.encode(merge_entries(EMPTY, [Entry(NOW, f"i{n}", 1.0) for n in range(10)], 10))
    for n in range(12_000):
        producer.send(topics.histories, value, key=b"u%05d" % (n % 6000), partition=n % 2)
    producer.close()
    steps: list[int] = []
    began = time.monotonic()
    done = export(kafka, topics, tmp_path / "large", lambda topic, read, total: steps.append(read))
    print(f"{time.monotonic() - began:.1f} s")
    assert sum(p.users for p in done.histories.partitions) == 6000
    assert histories(tmp_path / "large")[0][:2] == ("u00000", "i0") and len(histories(tmp_path / "large")) == 60_000
    assert len(steps) > 1 and max(steps) == 12_000
