"""A usual request is answered alike with the framework and without it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.api.short_way import ShortWay
from stream.api.tokens import add_token
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan
from tests.support.api import Answer, Instance, Writer, api, until

pytestmark = pytest.mark.kafka

LONG_WAY = {"origin": "https://shop.example"}  # nothing but the framework answers a request of a page
SAME = ("content-type", "cache-control", "x-content-type-options", "retry-after", "www-authenticate")


@pytest.fixture(scope="module")
def plan() -> TopicPlan:
    return TopicPlan(prefix=f"short{time.time_ns()}-", partitions=2)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    return {"file": str(file), "reader": add_token(file, "web", ["read"]), "writer": add_token(file, "in", ["write"])}


@pytest.fixture(scope="module")
def here(
    kafka: KafkaConnection, plan: TopicPlan, tokens: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    folder = tmp_path_factory.mktemp("api")
    with api(kafka, plan, folder, wait_seconds=0.3, tokens_file=Path(tokens["file"])) as instance:
        writer = Writer(kafka, plan)
        writer.list_of("ann", ["tea", "cups", "kettle"], as_of=41)
        writer.close()
        reader = {"authorization": f"Bearer {tokens['reader']}"}
        until(lambda: instance.ask("/v1/users/ann/recommendations", **reader).json["known"], "the list")
        yield instance


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the framework was asked for."""
    asked: list[str] = []
    init = ShortWay.__init__

    def spying(self: ShortWay, app: Any, *arguments: Any) -> None:
        async def noted(scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope["path"])
            await app(scope, receive, send)

        init(self, noted, *arguments)

    monkeypatch.setattr(ShortWay, "__init__", spying)
    return asked


def comparable(answer: Answer) -> tuple[int, dict[str, str | None], Any]:
    body = json.loads(answer.body)
    for passing in ("age_ms", "published"):
        body.pop(passing, None)
    return answer.status, {name: answer.headers.get(name) for name in SAME}, body


@pytest.mark.parametrize(
    ("user", "query"),
    [
        *(("ann", ""), ("ann", "?limit=2"), ("ann", "?as_of=41"), ("ann", "?as_of=42")),
        *(("stranger", ""), ("a.b_c~d:e@f-g", "")),
    ],
)
@pytest.mark.parametrize("caller", ["reader", "writer", "", "nobody"])
def test_both_ways_answer_alike(here: Instance, tokens: dict[str, str], user: str, query: str, caller: str) -> None:
    url = f"/v1/users/{user}/recommendations{query}"
    headers = {"authorization": f"Bearer {tokens.get(caller, caller)}"} if caller else {}
    assert comparable(here.ask(url, **headers)) == comparable(here.ask(url, **headers, **LONG_WAY))


def test_only_what_is_written_in_the_usual_way_goes_the_short_way(
    kafka: KafkaConnection, tmp_path: Path, short: list[str]
) -> None:
    plan = TopicPlan(prefix=f"alone{time.time_ns()}-", partitions=2)
    with api(kafka, plan, tmp_path) as instance:
        writer = Writer(kafka, plan)
        writer.list_of("ann", ["tea", "cups", "kettle"], as_of=41)
        writer.close()
        until(lambda: instance.list_of("ann")["known"], "the list")
        short.clear()
        for usual in ("ann/recommendations", "ann/recommendations?limit=3", "ann/recommendations?as_of=0"):
            assert instance.ask(f"/v1/users/{usual}").status == 200
        assert [path for path in short if "users" in path] == []
        for refused in ("a%2/recommendations", "ann/recommendations?limit=0", "ann/recommendations?limt=3"):
            assert instance.ask(f"/v1/users/{refused}").status == 400
        assert instance.ask("/v1/users/ann/recommendations?limit=3&exclude=tea").status == 200
        assert instance.ask("/v1/users/ann/recommendations", "POST", {}).status == 405
        assert len([path for path in short if "users" in path]) == 5
        assert 'route="recommendations"' in instance.ask("/metrics").body.decode()
