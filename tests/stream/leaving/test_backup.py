"""What comes back from a backup serves; whatever is altered, in the way, or killed is found."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kafka import KafkaProducer

from model.artifact import Manifest
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from ops.monitor.bins import ItemBins
from ops.monitor.loop_state import LoopState
from ops.monitor.signals import ScoreBins
from state.popularity import Popularity
from stream.clients.connection import KafkaConnection
from stream.demo.audit import last_values
from stream.leaving.backup import back_up, read_contents
from stream.leaving.folder import LeavingError
from stream.leaving.restore import CRASH_POINTS, restore
from stream.registry.artifacts import Artifacts, Provenance
from stream.registry.reference import Reference
from stream.registry.slots import SlotWriter, read_slots
from stream.trainer.loop_file import LoopFile
from stream.wire.records import Announcement
from stream.wire.topics import TopicPlan
from tests.stream.leaving.test_user import processes, until

ITEMS = ("cup", "pot", "tea")
V1, V2, V3 = (f"v{n}-20260101T00000{n}" for n in (1, 2, 3))


def stored(artifacts: Artifacts, version: str) -> Announcement:
    learner = Learner.fresh(preset("stream"), ItemIndex(ITEMS), seed=0, device=torch.device("cpu"))
    reference = Reference(version, ItemBins.fit(dict.fromkeys(ITEMS, 1)), dict.fromkeys(ITEMS, 1), ScoreBins())
    manifest = Manifest(version=version, created=1, data_until=2)
    return artifacts.save(learner, manifest, Provenance("topic", {0: 1}), reference)


def promote(kafka: KafkaConnection, plan: TopicPlan, **slots: Announcement) -> None:
    writer = SlotWriter(kafka, plan.models)
    writer.move(slots)
    writer.close()


class System:
    """What a running Freshet has outside of Kafka."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = Artifacts(str(folder / "artifacts"))
        self.decisions = folder / "trainer" / "decisions.json"
        self.scorer = folder / "scorer"

    def fill(self) -> None:
        LoopFile(self.decisions).save(LoopState(live=V2, previous=V1))
        popularity = Popularity(1000)
        popularity.add("tea", 5)
        self.scorer.mkdir(parents=True)
        (self.scorer / "popularity").write_bytes(popularity.dump())
        (self.scorer / "counts").write_bytes(b"counts")

    def back_up(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, **options: Any) -> None:
        back_up(kafka, plan, folder, self.decisions, [self.scorer], "[topics]\n", **options)

    def restore(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, **options: Any) -> None:
        restore(kafka, plan, folder, self.artifacts.url, self.decisions, [self.scorer], **options)


@pytest.fixture
def backed_up(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> Path:
    system = System(tmp_path / "system")
    system.fill()
    artifacts = system.artifacts
    promote(kafka, topics, live=stored(artifacts, V2), previous=stored(artifacts, V1))
    system.back_up(kafka, topics, tmp_path / "backup")
    shutil.rmtree(tmp_path / "system")
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(plan: TopicPlan) -> TopicPlan:
    """Topics of another Freshet."""
    return replace(plan, prefix="other-" + plan.prefix)


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_a_restored_model_serves(kafka: KafkaConnection, elsewhere: TopicPlan, backed_up: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    command = [sys.executable, "-m", "stream.cli", "restore", str(backed_up), "--prefix", elsewhere.prefix]
    command += ["--partitions", str(elsewhere.partitions), "--state-dir", str(new / "trainer")]
    command += ["--artifacts", str(new / "artifacts"), "--scorer-dir", str(new / "scorer")]
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"live is {V2}" in done.stdout, done.stdout + done.stderr
    assert LoopFile(new / "trainer" / "decisions.json").load().live == V2
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, "nothing is in the way of the same: " + again.stderr
    workers = ("updater", "--state-dir", str(new / "u")), ("scorer", "--state-dir", str(new / "scorer"))
    with processes(kafka, elsewhere, tmp_path, *workers):
        producer = KafkaProducer(**kafka.kafka_python())

        def served_by_the_model() -> bool:
            event = json.dumps({"user": "ann", "item": "tea", "timestamp": int(time.time() * 1000)}).encode()
            producer.send(elsewhere.interactions, event, key=b"ann").get(timeout=10)
            found = last_values(kafka, elsewhere.recommendations).get(b"ann", b"{}")
            return json.loads(found).get("model") == V2

        until(served_by_the_model, "a list of the restored model")
        producer.close()
    served = json.loads(last_values(kafka, elsewhere.recommendations)[b"ann"])
    assert {scored["item"] for scored in served["items"]} == {"cup", "pot"}


@pytest.mark.kafka
def test_a_backup_begins_again_when_a_model_moves(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    system = System(tmp_path)
    system.fill()
    first, second = stored(system.artifacts, V1), stored(system.artifacts, V2)
    promote(kafka, topics, live=first)
    moves = [second]

    def during() -> None:
        if moves:
            LoopFile(system.decisions).save(LoopState(live="moved"))
            promote(kafka, topics, live=moves.pop(), previous=first)

    system.back_up(kafka, topics, tmp_path / "backup", during=during)
    assert read_contents(tmp_path / "backup").versions == {"live": V2, "previous": V1}
    assert LoopFile(tmp_path / "backup" / "decisions.json").load().live == "moved"
    assert {path.name for path in (tmp_path / "backup" / "artifacts").iterdir()} == {V1, V2}


@pytest.mark.kafka
def test_whatever_was_altered_or_is_missing_is_found_before_anything_is_written(
    kafka: KafkaConnection, elsewhere: TopicPlan, backed_up: Path, tmp_path: Path
) -> None:
    files = sorted(path for path in backed_up.rglob("*") if path.is_file())
    assert len(files) == 2 * 4 + 6
    for path in files:
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        with pytest.raises(LeavingError, match=r"unreadable|not whole"):
            read_contents(backed_up)
        path.unlink()
        with pytest.raises(LeavingError, match=r"whole|no complete backup"):
            System(tmp_path / "new").restore(kafka, elsewhere, backed_up)
        path.write_bytes(content)
    assert not (tmp_path / "new").exists()


@pytest.mark.kafka
def test_nothing_is_overwritten(
    kafka: KafkaConnection, topics: TopicPlan, elsewhere: TopicPlan, backed_up: Path, tmp_path: Path
) -> None:
    new = System(tmp_path / "new")
    with pytest.raises(LeavingError, match="has models in service"):
        new.restore(kafka, topics, backed_up)
    new.decisions.parent.mkdir(parents=True)
    new.decisions.write_text("mine")
    with pytest.raises(LeavingError, match=r"decisions\.json is there already"):
        new.restore(kafka, elsewhere, backed_up)
    new.decisions.unlink()
    held = tmp_path / "new" / "artifacts" / f"{elsewhere.prefix}{V2}"
    held.mkdir(parents=True)
    (held / "manifest.json").write_text("{}")
    with pytest.raises(LeavingError, match="Nothing is overwritten"):
        new.restore(kafka, elsewhere, backed_up)
    assert not read_slots(kafka, elsewhere.models) and not new.decisions.exists()
    assert (held / "manifest.json").read_text() == "{}"


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from stream.clients.connection import KafkaConnection
from stream.leaving.restore import restore
from stream.wire.topics import TopicPlan

servers, prefix, backup, new, point = sys.argv[1:]
def crash(passed):
    if passed == point:
        os.kill(os.getpid(), signal.SIGKILL)
new = Path(new)
restore(KafkaConnection(servers), TopicPlan(prefix, 2), Path(backup), str(new / "artifacts"),
        new / "trainer" / "decisions.json", [new / "scorer"], crash)
"""


@pytest.mark.kafka
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_restore_that_was_killed_is_finished_by_another(
    kafka: KafkaConnection, elsewhere: TopicPlan, backed_up: Path, tmp_path: Path, point: str
) -> None:
    arguments = [kafka.bootstrap_servers, elsewhere.prefix, str(backed_up), str(tmp_path / "new"), point]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments])
    assert killed.returncode == -signal.SIGKILL
    new = System(tmp_path / "new")
    new.restore(kafka, elsewhere, backed_up)
    slots = read_slots(kafka, elsewhere.models)
    assert {slot: announcement.version for slot, announcement in slots.items()} == {"live": V2, "previous": V1}
    for announcement in slots.values():
        new.artifacts.load(announcement, torch.device("cpu"))
    assert new.decisions.exists() and (new.scorer / "popularity").exists()
    assert (new.scorer / "counts").read_bytes() == b"counts"
