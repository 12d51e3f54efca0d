"""Lists without a user over HTTP, and what is left out of anybody's list when it is read."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from stream.clients.connection import KafkaConnection
from stream.wire.meaning import EventKind, EventKinds
from stream.wire.topics import TopicPlan
from tests.support.api import Instance, Writer, api, until

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000
NOW = int(time.time() * 1000)
KINDS = EventKinds({"": EventKind(hides="30d")})


@pytest.fixture(scope="module")
def plan() -> TopicPlan:
    return TopicPlan(prefix=f"pages{time.time_ns()}-", partitions=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def here(kafka: KafkaConnection, plan: TopicPlan, folder: Path) -> Iterator[Instance]:
    with api(kafka, plan, folder, events=KINDS) as instance:
        yield instance


@pytest.fixture(scope="module")
def writer(kafka: KafkaConnection, plan: TopicPlan, here: Instance) -> Iterator[Writer]:
    writer = Writer(kafka, plan)
    yield writer
    writer.close()


def shown(answer: Any) -> list[str]:
    return [scored["item"] for scored in answer["items"]]


def page(here: Instance, path: str) -> Any:
    answer = here.ask(path)
    return answer.json if answer.status == 200 else None


@pytest.mark.parametrize("item", ["tea", "a/b", "日本", "%41"])
def test_similar_items_of_any_item(here: Instance, writer: Writer, item: str) -> None:
    path = f"/v1/items/{quote(item, safe='')}/similar"
    assert here.ask(path).status == 404
    writer.item_list(f"similar/{item}", ["cups", "pot", "lamp"])
    answer = until(lambda: page(here, path), "the list")
    assert answer["list"] == f"similar/{item}" and answer["model"] == "v1" and answer["as_of"] == 41
    assert shown(answer) == ["cups", "pot", "lamp"] and 0 <= answer["age_ms"] < 60_000
    assert shown(page(here, path + "?limit=1&exclude=cups")) == ["pot"]


def test_trending_new_and_categories(here: Instance, writer: Writer) -> None:
    assert here.ask("/v1/new").status == 404 and here.ask("/v1/trending?category=gifts").status == 404
    writer.item_list("trending", ["hit", "tea"])
    writer.item_list("trending/gifts/red", ["bow"])
    writer.item_list("new", ["fresh"])
    assert shown(until(lambda: page(here, "/v1/new"), "new")) == ["fresh"]
    assert shown(page(here, "/v1/trending")) == ["hit", "tea"]
    assert shown(page(here, "/v1/trending?category=gifts/red")) == ["bow"]


def test_a_user_of_whom_nothing_is_known_gets_what_is_trending(here: Instance, writer: Writer) -> None:
    writer.item_list("trending", ["hit", "tea", "gone"])
    writer.item("gone", available=False)
    answer = until(lambda: (found := here.list_of("nobody"))["items"] and found, "trending")
    assert answer["known"] is False and answer["variant"] == "popularity"
    until(lambda: shown(here.list_of("nobody"))[:2] == ["hit", "tea"], "trending")
    until(lambda: "gone" not in shown(here.list_of("nobody")), "what the item's record says")
    assert shown(here.list_of("nobody", "?exclude=hit&limit=1")) == ["tea"]


def test_what_may_not_be_listed_any_more_is_left_out_when_a_list_is_read(here: Instance, writer: Writer) -> None:
    writer.list_of("una", ["kept", "sold", "notforuna"])
    writer.item_list("similar/kept", ["sold", "notforuna"])
    until(lambda: here.list_of("una")["known"], "the list")
    writer.item("sold", until_ms=NOW - 1)
    writer.item("notforuna", hide_from=("una",))
    until(lambda: shown(here.list_of("una")) == ["kept"], "what the items' records say")
    assert shown(page(here, "/v1/items/kept/similar")) == ["notforuna"]
    writer.item("sold", available=True)
    until(lambda: shown(here.list_of("una")) == ["kept", "sold"], "the item's return")


def test_what_the_user_has_met_since_is_left_out_as_long_as_it_hides(here: Instance, writer: Writer) -> None:
    writer.history_of("hugo", {"old": NOW - 40 * DAY_MS, "late": NOW - 20 * DAY_MS, "just": NOW})
    writer.list_of("hugo", ["just", "late", "old", "other"])
    until(lambda: (found := here.list_of("hugo"))["known"] and shown(found) == ["old", "other"], "the history")


def test_lists_are_there_again_after_a_restart(
    kafka: KafkaConnection, plan: TopicPlan, here: Instance, writer: Writer, tmp_path: Path
) -> None:
    writer.item_list("similar/again", ["cups"])
    for _ in range(2):
        with api(kafka, plan, tmp_path) as instance:
            assert shown(instance.ask("/v1/items/again/similar").json) == ["cups"]
