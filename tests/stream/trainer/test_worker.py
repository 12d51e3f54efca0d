"""Rounds on a real Kafka: fitted, judged, announced, survived."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry

from model.artifact import load_recommender
from model.batch import Histories
from model.config import preset
from model.learner import Learner
from model.training import FitReport
from ops.metrics import TrainerMetrics
from ops.monitor.windows import WindowConfig, WindowCounter
from state.codec import encode
from state.history import EMPTY, Entry, History, merge_entries
from state.store import StoreConfig
from stream.clients.connection import KafkaConnection
from stream.registry.artifacts import read_provenance
from stream.registry.slots import NoWayBack, announce_rollback, read_slots
from stream.trainer.config import TrainerConfig
from stream.trainer.exam import pack
from stream.trainer.fine_tune import FineTuneConfig, Fit
from stream.trainer.worker import CRASH_POINTS, Trainer, run_trainer
from stream.wire.records import Announcement
from stream.wire.topics import TopicPlan, ensure_topics
from stream.wire.windows_topic import WindowSender

pytestmark = pytest.mark.kafka

USERS = 120
HOUR_MS = 3_600_000
MODEL = replace(preset("stream"), dims=(32,), learning_rate=5e-3, batch_users=64)


def checkerboard(user: int, count: int) -> list[Entry]:
    """Even users meet even items, odd users odd ones, one an hour, out of ten that are new by then: whoever stops
    learning stops knowing what people meet."""
    rng, met = np.random.default_rng(user), []
    for step in range(count):
        met.append(rng.choice([item for item in range(step, step + 10) if item not in met]))
    return [Entry(step * HOUR_MS + user, f"i{2 * item + user % 2}", 1.0) for step, item in enumerate(met)]


def world(count: int) -> dict[str, History]:
    """Everybody's history after `count` hours."""
    return {f"u{user}": merge_entries(EMPTY, checkerboard(user, count), 200) for user in range(USERS)}


def catalogue(count: int) -> int:
    return len({item for history in world(count).values() for item in history.items})


def write(kafka: KafkaConnection, plan: TopicPlan, users: dict[str, History]) -> None:
    ensure_topics(kafka, plan)
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5)
    for user, value in users.items():
        producer.send(plan.histories, encode(value), key=user.encode(), partition=int(user[1:]) % plan.partitions)
    producer.flush()
    producer.close()


def config(tmp_path: Path, **changes: object) -> TrainerConfig:
    given: dict = {
        "state_dir": tmp_path,
        "threads": 1,
        "spare_time_only": False,
        "round_seconds": 0.1,
        "least_interactions": 20,
        "first_users": USERS,
        "first_interactions": 500,
        "canary_share": 0.0,
        "fine_tune": FineTuneConfig(first_updates=120, updates=30, model=MODEL),
        "store": StoreConfig(write_buffer_bytes=256 * 1024, cache_bytes=4 * 1024 * 1024),
    }
    return TrainerConfig(**(given | changes))


@contextmanager
def training(config: TrainerConfig, kafka: KafkaConnection, plan: TopicPlan, **options: Any) -> Iterator[Trainer]:
    trainer = Trainer(config, kafka, plan, TrainerMetrics(CollectorRegistry()), **options)
    try:
        yield trainer
    finally:
        trainer.close()


def rounds(trainer: Trainer, outcome: str, trigger: str = "schedule") -> float:
    labels = {"trigger": trigger, "outcome": outcome}
    return trainer.metrics.registry.get_sample_value("freshet_training_rounds_total", labels) or 0.0


def turn_until(trainer: Trainer, condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        trainer.turn(50)
        assert time.monotonic() < deadline


def promote(trainer: Trainer, count: int = 1) -> None:
    turn_until(trainer, lambda: rounds(trainer, "promoted") == count)


def on_the_board(announcement: Announcement) -> float:
    """The share of what this model recommends to users of both colours that has their colour."""
    model = load_recommender(announcement.address, announcement.sha256, torch.device("cpu"))
    asked = [merge_entries(EMPTY, checkerboard(user, 3), 200) for user in range(USERS)]
    lists = model.rank(pack(model.items, asked), 10).columns
    fits = [int(model.items.ids[column][1:]) % 2 == user % 2 for user, row in enumerate(lists) for column in row]
    return sum(fits) / len(fits)


def test_a_first_model_and_its_child_go_live(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    write(kafka, plan, world(8))
    with training(config(tmp_path), kafka, plan) as trainer:
        promote(trainer)
        first = read_slots(kafka, plan.models)
        assert first.keys() == {"live"}
        assert first["live"].parent == ""
        assert first["live"].items == catalogue(8)
        assert on_the_board(first["live"]) > 0.9

        write(kafka, plan, world(11))
        promote(trainer, 2)
        assert not trainer.view.changed_users
    second = read_slots(kafka, plan.models)
    assert second["previous"] == msgspec.structs.replace(first["live"], slot="previous")
    assert second["live"].parent == first["live"].version
    assert read_provenance(second["live"]).root == read_provenance(first["live"]).root
    assert second["live"].items == catalogue(11)
    assert second["live"].data_until == max(h.newest_ms for h in world(11).values())
    assert second["live"].metrics["candidate.ndcg_at_20"] > second["live"].metrics["popularity.ndcg_at_20"]
    assert on_the_board(second["live"]) > 0.9


def test_users_beyond_a_rounds_cap_wait_also_over_a_restart_with_an_empty_disk(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    capped = config(tmp_path / "one", changed_users=40, first_users=USERS)
    write(kafka, plan, world(8))
    with training(capped, kafka, plan) as trainer:
        turn_until(trainer, lambda: trainer.view.changed_users == USERS)
        promote(trainer)
        assert trainer.view.changed_users == USERS - 40
    learnt = read_slots(kafka, plan.models)["live"].version
    elsewhere = replace(capped, state_dir=tmp_path / "two", round_seconds=3600.0)
    with training(elsewhere, kafka, plan) as trainer:
        turn_until(trainer, lambda: trainer.view.caught_up)
        assert trainer.lifecycle.slots.live is not None and trainer.lifecycle.slots.live.version == learnt
        assert trainer.view.changed_users == USERS - 40


def poison(learner: Learner, histories: Histories, epochs: int, stop: Callable[[], bool]) -> FitReport:
    """Sound numbers, wrong lessons: every item is taken for a random other one."""
    shuffled = np.random.default_rng(0).permutation(len(learner.items))
    return learner.fit(replace(histories, columns=shuffled[histories.columns]), epochs=20, stop=stop)


def explode(learner: Learner, histories: Histories, epochs: int, stop: Callable[[], bool]) -> FitReport:
    report = learner.fit(histories, epochs=epochs, stop=stop)
    with torch.no_grad():
        learner.average.decode.weight.mul_(float("inf"))
    return report


def fail(learner: Learner, histories: Histories, epochs: int, stop: Callable[[], bool]) -> FitReport:
    raise RuntimeError("the disk is on fire")


@pytest.mark.parametrize(("harm", "outcome"), [(poison, "rejected"), (explode, "rejected"), (fail, "failed")])
def test_a_bad_candidate_never_goes_live_and_is_no_parent(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, harm: Fit, outcome: str
) -> None:
    write(kafka, plan, world(8))
    with training(config(tmp_path), kafka, plan) as trainer:
        promote(trainer)
    good = read_slots(kafka, plan.models)
    write(kafka, plan, world(11))
    with training(config(tmp_path), kafka, plan, fit=harm) as trainer:
        turn_until(trainer, lambda: rounds(trainer, outcome) == 1)
        for _ in range(10):  # the same interactions do not start the same round again
            trainer.turn(50)
        assert rounds(trainer, outcome) == 1
        assert trainer.view.changed_users == USERS
    assert read_slots(kafka, plan.models) == good
    with training(config(tmp_path), kafka, plan) as trainer:  # what was refused is still there to be learnt
        promote(trainer)
    slots = read_slots(kafka, plan.models)
    assert slots["live"].parent == good["live"].version
    assert on_the_board(slots["live"]) > 0.9


def test_what_was_learnt_while_the_feed_broke_does_not_go_live(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    def in_bad_times(learner: Learner, histories: Histories, epochs: int, stop: Callable[[], bool]) -> FitReport:
        trainer.lifecycle.loop.decisions.window({}, {"items": "3 of 4 unknown"})
        return learner.fit(histories, epochs=epochs, stop=stop)

    write(kafka, plan, world(8))
    with training(config(tmp_path), kafka, plan, fit=in_bad_times) as trainer:
        turn_until(trainer, lambda: rounds(trainer, "rejected") == 1)
        failures = partial(trainer.metrics.registry.get_sample_value, "freshet_training_gate_failures_total")
        assert (failures({"gate": "data_quality"}) or 0) >= 1
        assert not read_slots(kafka, plan.models)
        trainer.request("manual")  # whatever the loop thinks
        turn_until(trainer, lambda: rounds(trainer, "promoted", "manual") == 1)


class Killed(BaseException):
    """Nothing after it runs, as after a kill."""


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_crash_anywhere_in_a_round_leaves_a_model_live_and_nothing_unlearnt(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, point: str
) -> None:
    write(kafka, plan, world(8))
    with training(config(tmp_path), kafka, plan) as trainer:
        promote(trainer)
    before = read_slots(kafka, plan.models)["live"]
    write(kafka, plan, world(11))

    def crash(passed: str) -> None:
        if passed == point:
            raise Killed

    with pytest.raises(Killed), training(config(tmp_path), kafka, plan, crash=crash) as trainer:
        turn_until(trainer, lambda: False)
    slots = read_slots(kafka, plan.models)
    announced = point in ("announced", "decided", "learnt")
    assert slots["live"].parent == (before.version if announced else "")
    assert on_the_board(slots["live"]) > 0.9
    with training(config(tmp_path), kafka, plan) as trainer:
        if announced:
            turn_until(trainer, lambda: trainer.view.caught_up)
            assert not trainer.view.changed_users
        else:
            promote(trainer)
            slots = read_slots(kafka, plan.models)
            assert slots["live"].parent == before.version == slots["previous"].version


def test_a_rollback_takes_the_previous_model_live_and_the_next_round_starts_from_it(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    write(kafka, plan, world(8))
    with training(config(tmp_path), kafka, plan) as trainer:
        promote(trainer)
        with pytest.raises(NoWayBack, match="no earlier version"):
            announce_rollback(kafka, plan.models)
        write(kafka, plan, world(11))
        promote(trainer, 2)
        good, bad = announce_rollback(kafka, plan.models)
        assert bad.parent == good.version
        turn_until(trainer, lambda: rolled_back(trainer, "manual") == 1)
        assert not trainer.roll_back("quality")  # one step is all there is
        write(kafka, plan, world(14))
        promote(trainer, 3)
        slots = read_slots(kafka, plan.models)
        assert slots["live"].parent == good.version == slots["previous"].version
        assert slots["retired"].version == bad.version
        assert slots["live"].version > bad.version

        assert trainer.roll_back("quality")
        assert rolled_back(trainer, "quality") == 1
        assert read_slots(kafka, plan.models)["live"].version == good.version


def rolled_back(trainer: Trainer, reason: str) -> float:
    return trainer.metrics.registry.get_sample_value("freshet_model_rollbacks_total", {"reason": reason}) or 0.0


def test_old_artifacts_go_and_those_that_slots_name_stay(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    with training(config(tmp_path, keep_versions=1), kafka, plan) as trainer:
        for count in range(1, 5):
            write(kafka, plan, world(6 + 2 * count))
            promote(trainer, count)
            time.sleep(1.0)  # versions are told apart by the second
    slots = read_slots(kafka, plan.models)
    kept = {path.name.removeprefix(plan.prefix) for path in (tmp_path / "artifacts").iterdir()}
    assert kept == {slots["live"].version, slots["previous"].version}


def test_a_request_starts_a_round_and_an_end_in_mid_round_takes_seconds(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    write(kafka, plan, world(8))
    began, stop = threading.Event(), threading.Event()

    def endless(learner: Learner, histories: Histories, epochs: int, stop: Callable[[], bool]) -> FitReport:
        began.set()
        return learner.fit(histories, epochs=1_000_000, stop=stop)

    patient = config(tmp_path, first_users=10 * USERS)
    trainer = Trainer(patient, kafka, plan, TrainerMetrics(CollectorRegistry()), fit=endless)
    thread = threading.Thread(target=trainer.run, args=(stop,))
    thread.start()
    assert not began.wait(1.0)
    trainer.request("manual")
    assert began.wait(30)
    start = time.monotonic()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - start < 5
    assert not read_slots(kafka, plan.models)


def test_a_refit_starts_from_nothing_and_is_judged_against_live(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    write(kafka, plan, world(8))
    with training(config(tmp_path), kafka, plan) as trainer:
        promote(trainer)
    write(kafka, plan, world(11))
    with training(config(tmp_path, round_seconds=3600), kafka, plan) as trainer:
        trainer.request("drift", refit=True)
        turn_until(trainer, lambda: rounds(trainer, "promoted", "drift") == 1)
        with pytest.raises(ValueError, match="whim"):
            trainer.request("whim")  # type: ignore[arg-type]  # refused
    live = read_slots(kafka, plan.models)["live"]
    assert live.parent == ""
    root = read_provenance(live).root
    assert root is not None and root.version == live.version
    assert "live.ndcg_at_20" in live.metrics


@pytest.mark.parametrize(("against", "in_favour", "verdict"), [(2, 3, "promoted"), (60, 10, "rejected")])
def test_a_canary_answers_some_users_first(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, against: int, in_favour: int, verdict: str
) -> None:
    write(kafka, plan, world(8))
    with training(config(tmp_path, canary_share=0.2, canary_events=100), kafka, plan) as trainer:
        promote(trainer)  # the first model stands in for nothing
        write(kafka, plan, world(11))
        turn_until(trainer, lambda: "candidate" in read_slots(kafka, plan.models))
        slots = read_slots(kafka, plan.models)
        assert slots["candidate"].share == 0.2
        assert slots["candidate"].parent == slots["live"].version
        counter = WindowCounter("scorer", WindowConfig())
        bins = [1] * against + [2] * in_favour + [0] * 100  # only live hit, only the candidate, neither
        counter.add("against_live", [1_700_000_000_000] * len(bins), bins, 4, slots["candidate"].version)
        sender = WindowSender(kafka, plan.monitor_windows)
        sender.send(counter, now=True)
        sender.close()
        before = rounds(trainer, verdict)
        turn_until(trainer, lambda: rounds(trainer, verdict) == before + 1)
        after = read_slots(kafka, plan.models)
    assert "candidate" not in after
    assert (after["live"].version == slots["candidate"].version) == (verdict == "promoted")


def test_the_process_runs_until_it_is_told_to_stop(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    write(kafka, plan, world(8))
    stop, results = threading.Event(), []
    arguments = (config(tmp_path), kafka, plan, CollectorRegistry(), stop)
    thread = threading.Thread(target=lambda: results.append(run_trainer(*arguments)))
    thread.start()
    deadline = time.monotonic() + 60
    while "live" not in read_slots(kafka, plan.models):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    stop.set()
    thread.join(10)
    assert results == [0]
