"""A pilot beside the traffic of a whole pipeline: each list says its variant, a kill changes nothing, harm ends it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition

from ops.instruments import declared
from ops.metrics import TrainerMetrics
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.demo.scrape import scrape
from stream.pilots.pilot import CONTROL
from stream.pilots.report import PilotReport, report
from stream.pilots.topic import PilotReader
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan
from tests.support.commands import freshet as command
from tests.support.whole import Running, freshet

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

USERS, FILLERS, AHEAD = 60, 30, 5


class Shop:
    """All users meet the same items in the same order, odd ones some items ahead: what even users meet next is popular
    already. There is no model, and none is trained."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan) -> None:
        self.kafka, self.plan, self.step = kafka, plan, 0
        self.producer = KafkaProducer(**kafka.kafka_python())
        self.reader = TopicReader(kafka)
        self.reader.assign([TopicPartition(plan.recommendations, number) for number in range(plan.partitions)])
        self.reader.to_beginning()
        self.pilots = PilotReader(kafka, plan.pilots)
        self.last: dict[str, dict[str, Any]] = {}
        for number in range(FILLERS):  # so that lists are full
            self.send(f"filler-{number}", f"f{number}", int(time.time() * 1000))

    def send(self, user: str, item: str, time_ms: int) -> None:
        value = json.dumps({"user": user, "item": item, "timestamp": time_ms}).encode()
        partition = home_of(user.encode(), self.plan.partitions)
        self.producer.send(self.plan.interactions, value, key=user.encode(), partition=partition)

    def answered(self, since_ms: int) -> bool:
        """Has everybody a list that knows the events of this time?"""
        for records in self.reader.poll(0.1).values():
            for record in records:
                assert record.key is not None
                if record.value is not None and record.key.startswith(b"u"):
                    found = json.loads(record.value)
                    self.last[found["user"]] = found
        return sum(found["as_of"] >= since_ms for found in self.last.values()) == USERS

    def lists(self, running: Running) -> dict[str, dict[str, Any]]:
        """Everybody's list after an event of everybody."""
        self.step, now_ms = self.step + 1, int(time.time() * 1000)
        for user in range(USERS):
            self.send(f"u{user}", f"i{self.step + AHEAD * (user % 2)}", now_ms)
        self.producer.flush()
        running.until(lambda: self.answered(now_ms), "a list for everybody")
        return dict(self.last)

    def said(self, name: str) -> PilotReport:
        """What the topic says of a pilot by now."""
        deadline = time.monotonic() + 30
        while self.pilots.poll() or name not in self.pilots.pilots.names:
            assert time.monotonic() < deadline
        return report(self.pilots.pilots[name], self.pilots.pilots.counts(name))

    def pilot(self, *arguments: str) -> str:
        environment = {"FRESHET_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers}
        done = command("pilot", *arguments, "--prefix", self.plan.prefix, environment=environment)
        assert done.exit_code == 0, done
        return done.output

    def close(self) -> None:
        self.producer.close()
        self.reader.close()
        self.pilots.close()


@pytest.fixture
def shop(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Shop]:
    shop = Shop(kafka, topics)
    yield shop
    shop.close()


def variants(lists: dict[str, dict[str, Any]]) -> dict[str, str | None]:
    return {user: found["pilot"]["variant"] if "pilot" in found else None for user, found in lists.items()}


def test_a_pilot_of_a_running_pipeline(kafka: KafkaConnection, shop: Shop, tmp_path: Path) -> None:
    with freshet(tmp_path, kafka, shop.plan, trainer=("--first-users", "1000000")) as running:
        for _ in range(AHEAD):
            assert set(variants(shop.lists(running)).values()) == {None}
        shop.pilot("start", "plain", "--variant", "b=list_items=19", "--share", "0.5")
        running.until(lambda: set(variants(shop.lists(running)).values()) == {"b", CONTROL}, "a list of the pilot", 30)
        lists = shop.lists(running)
        pilot = shop.said("plain").pilot
        chosen = {f"u{number}": pilot.variant_of(f"u{number}".encode()) for number in range(USERS)}
        assert variants(lists) == {user: variant and variant.name for user, variant in chosen.items()}
        assert {(found["pilot"]["variant"], len(found["items"])) for found in lists.values()} == {
            ("b", 19),
            (CONTROL, 20),
        }

        running.until(lambda: all(arm.outcomes >= 20 for arm in shop.said("plain").arms), "counts of both", 30)
        running.until(lambda: running.total("freshet_pilot_users") == USERS, "the guardrail's figures", 30)
        shown = {metric.exported for metric in declared(TrainerMetrics) if "pilot" in metric.labels}
        assert shown <= set(scrape(running.pipeline.metrics_urls).values)
        before = {arm.name: arm for arm in shop.said("plain").arms}
        assert sum(arm.users for arm in before.values()) == USERS

        os.kill(running.pid("scorer"), signal.SIGKILL)
        for _ in range(2):  # by the scorer that was started again
            assert variants(shop.lists(running)) == variants(lists)
        more = before["b"].outcomes + 1
        running.until(lambda: shop.said("plain").variants[0].outcomes >= more, "counts of the new scorer", 30)
        assert sum(arm.users for arm in shop.said("plain").arms) == USERS  # nobody is counted twice
        found = {arm["variant"]: arm for arm in json.loads(shop.pilot("report", "--json"))["variants"]}
        assert found["b"]["outcomes"] >= more and found["control"]["hit_rate"] > 0.2

        shop.pilot("stop")
        running.until(lambda: set(variants(shop.lists(running)).values()) == {None}, "lists without a pilot", 30)

        shop.pilot("start", "short", "--variant", "c=list_items=1", "--share", "0.9")
        running.until(lambda: "c" in variants(shop.lists(running)).values(), "a list of the second pilot", 30)
        running.until(lambda: set(variants(shop.lists(running)).values()) == {None}, "the guardrail's stop", 60)
        running.until(lambda: shop.said("short").variants[0].stopped != "", "the stop on the topic", 30)
        (stopped,) = shop.said("short").variants
        assert (stopped.verdict, stopped.stopped[:10]) == ("worse", "hit rate -")
        assert running.total("freshet_pilot_stops_total") == 1
