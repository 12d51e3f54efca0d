"""From a user without events to a personal list, as a page that asks over HTTP sees it."""

import json
import time
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream.clients.connection import KafkaConnection
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan
from tests.support.api import Instance
from tests.support.whole import freshet

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

USERS, ITEMS = 60, 24


def test_a_user_without_events_gets_what_is_trending_and_a_personal_list_after_the_first(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    """Even users meet even items and odd users odd ones; item 0 is met by all."""
    with freshet(tmp_path, kafka, plan) as running:
        producer, now_ms = KafkaProducer(**kafka.kafka_python()), int(time.time() * 1000)
        for step in range(8):
            for user in range(USERS):
                item = 0 if step == 0 else 2 * ((user + 5 * step) % (ITEMS // 2)) + user % 2
                event = {"user": f"u{user}", "item": f"i{item}", "timestamp": now_ms - 10_000 + 100 * step + user}
                key = f"u{user}".encode()
                value, partition = json.dumps(event).encode(), home_of(key, plan.partitions)
                producer.send(plan.interactions, value, key=key, partition=partition)
        producer.close()
        (url,) = running.pipeline.api_urls
        here = Instance(url)
        running.until(here.ready, "the API being ready")
        running.until(lambda: running.total("freshet_model_promotions_total") >= 1, "the first model")
        running.until(lambda: running.total("freshet_model_loaded_timestamp_seconds", slot="live") > 0, "serving it")
        running.until(lambda: here.ask("/v1/items/i5/similar").status == 200, "similar items")
        trending = here.ask("/v1/trending").json
        assert trending["items"][0]["item"] == "i0"
        assert "i5" not in [scored["item"] for scored in here.ask("/v1/items/i5/similar").json["items"]]

        stranger = here.list_of("stranger")
        assert stranger["known"] is False and stranger["variant"] == "popularity"
        assert stranger["items"][0]["item"] == "i0"
        (receipt,) = here.ask("/v1/events", "POST", {"user": "stranger", "item": "i5"}).json["receipts"]
        personal = here.list_of("stranger", f"?as_of={receipt['as_of']}")
        assert personal["known"] is True and personal["variant"] == "control" and personal["model"]
        assert "i5" not in [scored["item"] for scored in personal["items"]]
