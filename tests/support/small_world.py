"""An updater and a scorer as processes, events of some users, and models that are announced without a trainer."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

from model.artifact import Manifest
from model.batch import Histories
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, feature_names
from model.rerank.reranker import Reranker
from ops.monitor.bins import ItemBins
from ops.monitor.signals import ScoreBins
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.demo.scrape import Scrape, scrape
from stream.local.pipeline import free_port
from stream.registry.artifacts import Artifacts, Provenance
from stream.registry.reference import Reference
from stream.registry.slots import SlotWriter, promotion
from stream.wire.newest import newest_records
from stream.wire.records import Interaction, Recommendation
from stream.wire.topics import TopicPlan, ensure_topics

__all__ = ["SmallWorld", "small_world"]

ITEMS = 60


def any_reranker(seed: int) -> Reranker:
    """One that looks at everything."""
    torch.manual_seed(seed)
    reranker = Reranker(torch.randn(len(feature_names(CountsConfig()))) / 2, len(USER_FEATURES), hidden=6)
    with torch.no_grad():
        reranker.weights.normal_(0, 0.2)
        reranker.last.weight.normal_(0, 0.5)
    return reranker.eval().requires_grad_(False)


class SmallWorld:
    """`updater` and `scorer` run; users have a taste each, and everybody meets something twice now and then."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, options: tuple[str, ...]) -> None:
        self.kafka, self.plan, self.folder, self.options = kafka, plan, folder, options
        ensure_topics(kafka, plan)
        self._rng = np.random.default_rng(3)
        self._producer = KafkaProducer(**kafka.kafka_python(), linger_ms=2)
        self._artifacts = Artifacts(str(folder / "artifacts"))
        self._slots = SlotWriter(kafka, plan.models)
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._newest: dict[str, int] = {}  # event time by user
        self._versions = 0

    def start(self, name: str) -> None:
        port = free_port()
        device = ("--device", "cpu") if name == "scorer" else ()
        command = [
            *(sys.executable, "-m", "stream.cli", *self.options, name, "--prefix", self.plan.prefix, *device),
            *("--partitions", str(self.plan.partitions), "--state-dir", str(self.folder / name)),
            *("--metrics-port", str(port), "--session-seconds", "6", "--worker", f"{name}.1"),
        ]
        environment = {
            **os.environ,
            "FRESHET_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "OMP_NUM_THREADS": "1",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log), port

    def end(self, name: str, kill: bool = False) -> None:
        process, _ = self._processes.pop(name)
        (process.kill if kill else process.terminate)()
        process.wait(20)

    def look(self, name: str) -> Scrape:
        return scrape({name: f"http://127.0.0.1:{self._processes[name][1]}/metrics"})

    def send(self, count: int, users: int, kinds: tuple[str, ...] = ("",)) -> None:
        """Events of so many users, now."""
        rng = self._rng
        for _ in range(count):
            user = int(rng.integers(users))
            item = int(rng.integers(ITEMS // 2)) * 2 + user % 2 if rng.random() < 0.9 else int(rng.integers(ITEMS))
            name, now_ms = f"u{user}", int(time.time() * 1000)
            event = Interaction(name, f"i{item}", now_ms, event=kinds[int(rng.integers(len(kinds)))])
            self._newest[name] = now_ms
            self._producer.send(self.plan.interactions, msgspec.json.encode(event), key=name.encode())
            time.sleep(0.0005)
        self._producer.flush()

    def forget(self, user: str) -> None:
        self._producer.send(self.plan.interactions, None, key=user.encode()).get(10)
        self._newest.pop(user, None)

    def say(self, item: str, **said: object) -> None:
        """On the topic `items`."""
        value = msgspec.json.encode({"item": item, **said})
        self._producer.send(self.plan.items, value, key=item.encode()).get(10)

    def announce(self, *, reranked: bool, slot: str = "live", share: float = 0.0) -> str:
        """A model of its own seed is announced; returns its version."""
        self._versions += 1
        version, now_ms = f"v{self._versions}", int(time.time() * 1000)
        config = replace(preset("stream"), dims=(16, 32))
        index = ItemIndex([f"i{n}" for n in range(ITEMS - 6)])
        learner = Learner.fresh(config, index, seed=self._versions, device=torch.device("cpu"))
        rows = [(user, item) for user in range(60) for item in self._rng.choice(len(index), 12, replace=False)]
        learner.fit(Histories.from_rows(np.array(rows), users=60), epochs=2)
        announced = self._artifacts.save(
            learner,
            Manifest(version=version, created=now_ms, data_until=now_ms),
            Provenance("t", {}),
            Reference(version, ItemBins.fit(dict.fromkeys(index.ids, 1)), dict.fromkeys(index.ids, 1), ScoreBins()),
            any_reranker(self._versions) if reranked else None,
        )
        if slot == "live":
            self._slots.move(promotion(self._slots.current, announced))
        else:
            self._slots.put(slot, msgspec.structs.replace(announced, share=share))
        return version

    def record(self, user: str) -> ConsumerRecord:
        """The newest of a user's lists."""
        with TopicReader(self.kafka) as reader:
            reader.assign(reader.partitions(self.plan.recommendations))
            reader.to_beginning()
            return [record for record in reader.read_to_end() if record.key == user.encode()][-1]

    def lists(self) -> dict[str, Recommendation]:
        """Everybody's newest."""
        with TopicReader(self.kafka) as reader:
            reader.assign(reader.partitions(self.plan.recommendations))
            reader.to_beginning()
            newest = newest_records(reader.read_to_end())
        return {
            user.decode(): msgspec.json.decode(record.value, type=Recommendation)
            for user, record in newest.items()
            if record.value is not None
        }

    def until_answered(self, version: str = "") -> None:
        """Every event has its list, and, if a version is given, every list that it is to make is made."""

        def open_questions() -> str:
            lists = self.lists()
            behind = {
                user: f"{lists[user].as_of if user in lists else 'no list'}, newest event {newest}"
                for user, newest in self._newest.items()
                if user not in lists or lists[user].as_of < newest
            }
            made_by = sorted({one.model for one in lists.values()})
            unused = f" none by {version!r}, but by {made_by};" if version and version not in made_by else ""
            return f"{unused} behind: {behind}" if unused or behind else ""

        self.until(lambda: not open_questions(), "everybody's list", open_questions)

    def until(self, condition: Callable[[], bool], what: str, detail: Callable[[], str] = str) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
                raise AssertionError(f"{what} did not come:{detail()}\n{logs}")
            time.sleep(0.2)

    def serves(self, slot: str, version: str) -> None:
        def loaded() -> bool:
            return self.look("scorer").total("freshet_model_info", slot=slot, version=version) == 1

        self.until(loaded, f"{version} as {slot}")

    def close(self) -> None:
        for name in list(self._processes):
            self.end(name, kill=True)
        self._producer.close(timeout=2)
        self._slots.close()


@contextmanager
def small_world(
    kafka: KafkaConnection, plan: TopicPlan, folder: Path, options: tuple[str, ...] = ()
) -> Iterator[SmallWorld]:
    world = SmallWorld(kafka, plan, folder, options)
    try:
        for name in ("updater", "scorer"):
            world.start(name)
        yield world
    finally:
        world.close()
