"""One instance, asked over HTTP, with lists and histories as scorer and updater write them."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from stream.api.tokens import add_token
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan
from tests.support.api import Instance, Writer, api, until
from tests.support.updating import read_all

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def plan() -> TopicPlan:
    """One set of topics for all tests here; each test has users of its own."""
    return TopicPlan(prefix=f"api{time.time_ns()}-", partitions=2)


@pytest.fixture(scope="module")
def here(kafka: KafkaConnection, plan: TopicPlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with api(kafka, plan, tmp_path_factory.mktemp("api"), wait_seconds=1.0, body_bytes=200_000) as instance:
        yield instance


@pytest.fixture(scope="module")
def writer(kafka: KafkaConnection, plan: TopicPlan, here: Instance) -> Iterator[Writer]:
    writer = Writer(kafka, plan)
    yield writer
    writer.close()


def shown(here: Instance, user: str) -> list[str]:
    return [scored["item"] for scored in here.list_of(user)["items"]]


def test_a_list_is_readable_moments_after_it_was_published(here: Instance, writer: Writer) -> None:
    writer.list_of("ann", ["tea", "cups", "kettle"], as_of=41)
    answer = until(lambda: (found := here.list_of("ann"))["known"] and found, "the list")
    assert [scored["item"] for scored in answer["items"]] == ["tea", "cups", "kettle"]
    assert answer["user"] == "ann" and answer["model"] == "v1" and answer["variant"] == "control"
    assert answer["as_of"] == 41 and answer["reason"] == "event" and 0 <= answer["age_ms"] < 60_000


def test_limit_and_exclude_shorten_the_list(here: Instance, writer: Writer) -> None:
    writer.list_of("lea", ["a", "b", "c", "d"])
    until(lambda: here.list_of("lea")["known"], "the list")
    assert [scored["item"] for scored in here.list_of("lea", "?limit=2&exclude=a&exclude=c")["items"]] == ["b", "d"]
    assert here.list_of("lea", "?exclude=a&exclude=b&exclude=c&exclude=d")["items"] == []


def test_an_unknown_user_gets_what_is_popular_and_is_told_so(here: Instance, writer: Writer) -> None:
    for n in range(5):
        writer.history_of(f"fan{n}", {"hit": 1_700_000_000_000 + n, f"odd{n}": 1_700_000_000_000})
    answer = until(lambda: (found := here.list_of("nobody"))["items"] and found, "popularity")
    until(lambda: here.list_of("nobody", "?limit=1")["items"][0]["item"] == "hit", "the most popular item")
    assert answer["known"] is False and answer["model"] == "" and answer["variant"] == "popularity"
    assert "hit" not in [scored["item"] for scored in here.list_of("nobody", "?exclude=hit")["items"]]


def test_a_history_is_told_newest_first_and_an_unknown_one_is_not_found(here: Instance, writer: Writer) -> None:
    writer.history_of("hal", {"tea": 1_000, "cups": 2_000})
    answer = until(lambda: (found := here.ask("/v1/users/hal/history")).status == 200 and found, "the history").json
    assert [(entry["item"], entry["interactions"][0]["time"]) for entry in answer["items"]] == [
        ("cups", 2_000),
        ("tea", 1_000),
    ]
    assert len(here.ask("/v1/users/hal/history?limit=1").json["items"]) == 1
    assert here.ask("/v1/users/stranger/history").status == 404


@pytest.mark.parametrize("user", ["a/b", "../../etc/passwd", "%41", "日本", "a b+c", "..", "x" * 512, "\x00", "?#"])
def test_any_id_can_be_asked_for(here: Instance, writer: Writer, user: str) -> None:
    writer.list_of(user, ["tea"])
    path = quote(user, safe="")
    assert until(lambda: (found := here.list_of(path))["known"] and found, "the list")["user"] == user


def test_as_of_waits_for_the_list_that_knows_the_event(here: Instance, writer: Writer) -> None:
    writer.list_of("will", ["old"], as_of=100)
    until(lambda: here.list_of("will")["known"], "the first list")
    publishing = threading.Timer(0.3, writer.list_of, ("will", ["new"], 200))
    publishing.start()
    began = time.monotonic()
    answer = here.list_of("will", "?as_of=150")
    assert answer["as_of"] == 200 and 0.2 < time.monotonic() - began < 1.0
    publishing.join()
    assert here.list_of("will", "?as_of=200")["as_of"] == 200
    late = here.ask("/v1/users/will/recommendations?as_of=201")
    assert late.status == 503 and late.headers["retry-after"] == "1" and "201" in late.json["detail"]
    ahead = int(time.time() * 1000) + 3_600_000
    assert here.ask(f"/v1/users/will/recommendations?as_of={ahead}").status == 400


def test_a_tombstone_takes_the_list_away(here: Instance, writer: Writer) -> None:
    writer.list_of("gone", ["tea"])
    until(lambda: here.list_of("gone")["known"], "the list")
    writer.raw_list("gone", None)
    until(lambda: not here.list_of("gone")["known"], "forgetting")


@pytest.mark.parametrize(
    "value",
    [b"nonsense", b"\xff\xfe", b"{}", json.dumps({"user": "bob", "items": []}).encode()],
    ids=["text", "bytes", "empty", "half"],
)
def test_what_is_no_list_is_not_shown(here: Instance, writer: Writer, value: bytes) -> None:
    writer.raw_list("broken", value)
    writer.list_of("after", ["tea"])
    until(lambda: here.list_of("after")["known"], "what came after it")
    assert here.list_of("broken")["known"] is False
    assert "freshet_api_unusable_lists_total 0.0" not in here.ask("/metrics").body.decode()


def test_a_list_of_somebody_else_is_never_shown(here: Instance, writer: Writer) -> None:
    secret = {"user": "carl", "items": [{"item": "secret", "score": 1.0}], "model": "v", "variant": "control"}
    value = json.dumps(secret | {"as_of": 1, "reason": "event", "published": 1}).encode()
    writer.raw_list("dora", value)
    writer.list_of("carla", ["tea"])
    until(lambda: here.list_of("carla")["known"], "what came after it")
    assert "secret" not in shown(here, "dora")


def test_events_are_kept_and_refused_one_by_one(here: Instance, kafka: KafkaConnection, plan: TopicPlan) -> None:
    now_ms = int(time.time() * 1000)
    events = [{"user": f"post{n}", "item": "tea", "timestamp": now_ms} for n in range(1000)]
    events[3], events[4], events[5] = {"user": "x"}, {"user": "post4", "item": "", "timestamp": 1}, 7  # type: ignore
    answer = here.ask("/v1/events", "POST", events)
    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["refused"], answer.json["failed"]) == (997, 3, 0)
    refused = [place for place, receipt in enumerate(answer.json["receipts"]) if "refused" in receipt]
    assert refused == [3, 4, 5]
    assert answer.json["receipts"][0]["topic"] == plan.interactions and answer.json["receipts"][0]["as_of"] <= now_ms
    kept = [record for record in read_all(kafka, plan.interactions) if record.key.startswith(b"post")]
    assert len(kept) == 997


def test_one_event_may_come_alone_and_without_a_time(here: Instance, kafka: KafkaConnection, plan: TopicPlan) -> None:
    answer = here.ask("/v1/events", "POST", {"user": "solo", "item": "tea"})
    assert answer.status == 202 and answer.json["accepted"] == 1
    (record,) = [record for record in read_all(kafka, plan.interactions) if record.key == b"solo"]
    assert abs(json.loads(record.value)["timestamp"] - time.time() * 1000) < 60_000


def test_when_no_event_can_be_used_it_is_no_success(here: Instance) -> None:
    answer = here.ask("/v1/events", "POST", [{"user": "x"}])
    assert answer.status == 422 and answer.json["refused"] == 1


def test_forgetting_writes_the_wish(here: Instance, kafka: KafkaConnection, plan: TopicPlan) -> None:
    answer = here.ask("/v1/users/a%2Fb/", "DELETE")
    assert answer.status == 404  # the slash at the end is another path
    answer = here.ask("/v1/users/a%2Fb", "DELETE")
    assert answer.status == 202 and answer.json["topic"] == plan.interactions
    (record,) = [record for record in read_all(kafka, plan.interactions) if record.key == b"a/b"]
    assert record.value is None and record.offset == answer.json["offset"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/users/ann/recommendations?limit=0", 400),
        ("/v1/users/ann/recommendations?limit=x", 400),
        ("/v1/users/ann/recommendations?surface=cart", 400),
        ("/v1/users/ann/recommendations?explain=21", 400),
        ("/v1/users/ann/recommendations?as_of=-1", 400),
        ("/v1/users/ann/recommendations?unknown=1", 400),
        ("/v1/users/%ff/recommendations", 400),
        ("/v1/users/%4/recommendations", 400),
        ("/v1/users/" + "x" * 513 + "/recommendations", 400),
        ("/v1/users//recommendations", 404),
        ("/v1/users/a/b/recommendations", 404),
        ("/v1/users/ann/recommendations/", 404),
        ("/v1/../v1/users/ann/recommendations", 404),
        ("/v1/users/ann", 405),
        ("/", 404),
        ("/%76%31/users/ann/recommendations", 404),
        ("/docs", 404),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(here: Instance, path: str, status: int) -> None:
    answer = here.ask(path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status and "\n" not in answer.json["detail"]


def test_bodies_are_bounded_and_must_be_json(here: Instance) -> None:
    assert here.ask("/v1/events", "POST", b"x" * 200_001).status == 413
    assert here.ask("/v1/events", "POST", b"{}", content_type="text/plain").status == 415
    assert here.ask("/v1/events", "POST", b"{").status == 400
    assert here.ask("/v1/events", "POST", b"[]").status == 400
    assert here.ask("/v1/events", "POST", [{}] * 1001).status == 400


def test_a_body_in_chunks_is_bounded_too(here: Instance) -> None:
    host, port = here.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for _ in range(21):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_the_document_describes_what_there_is(here: Instance) -> None:
    document = here.ask("/openapi.json").json
    assert set(document["paths"]) == {
        "/v1/users/{user}/recommendations",
        "/v1/users/{user}/history",
        "/v1/users/{user}",
        "/v1/items/{item}/similar",
        "/v1/trending",
        "/v1/new",
        "/v1/events",
        "/healthz",
        "/readyz",
        "/metrics",
    }


def test_answers_are_not_stored_and_the_server_does_not_introduce_itself(here: Instance) -> None:
    answer = here.ask("/healthz")
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["server"] is None and answer.headers["access-control-allow-origin"] is None


def test_a_page_of_somebody_elses_is_refused(here: Instance) -> None:
    assert here.ask("/v1/users/ann/recommendations", host="shop.example").status == 403
    assert here.ask("/v1/users/ann/recommendations", x_forwarded_for="203.0.113.9").status == 403


def test_tokens_open_what_their_scopes_say(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    path, log = tmp_path / "tokens.toml", tmp_path / "access.log"
    tokens = {scope: add_token(path, scope, [scope]) for scope in ("read", "write", "admin")}
    event = {"user": "tok", "item": "tea"}
    asked = (
        ("GET", "/v1/users/tok/recommendations", None, {"read", "admin"}),
        ("GET", "/v1/users/tok/history", None, {"read", "admin"}),
        ("GET", "/metrics", None, {"read", "admin"}),
        ("POST", "/v1/events", event, {"write", "admin"}),
        ("DELETE", "/v1/users/tok", None, {"admin"}),
    )
    with api(kafka, plan, tmp_path / "state", tokens_file=path, host="127.0.0.1", access_log=str(log)) as instance:
        for method, url, body, allowed in asked:
            assert instance.ask(url, method, body).status == 401
            assert instance.ask(url, method, body, authorization="Bearer nonsense").status == 401
            for scope, secret in tokens.items():
                status = instance.ask(url, method, body, authorization=f"Bearer {secret}").status
                assert (status in (200, 202, 404)) == (scope in allowed), (method, url, scope, status)
                assert status == 403 or scope in allowed
        assert instance.ask("/healthz").status == 200 and instance.ask("/readyz").status == 200
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    read = [line for line in lines if line["route"] == "recommendations" and line["status"] == 200]
    assert {line["caller"] for line in read} == {"read", "admin"} and read[0]["method"] == "GET"
    assert not any(secret in log.read_text() for secret in tokens.values()) and "tok/" not in log.read_text()


def test_cross_origin_reading_is_off_until_it_is_allowed(
    kafka: KafkaConnection, plan: TopicPlan, here: Instance, tmp_path: Path
) -> None:
    origin, page = "https://shop.example", "/v1/users/ann/recommendations"
    assert here.ask(page, origin=origin).headers["access-control-allow-origin"] is None
    with api(kafka, plan, tmp_path, cors_origins=(origin,)) as instance:
        assert instance.ask(page, origin=origin).headers["access-control-allow-origin"] == origin
        assert instance.ask(page, origin="https://evil.example").headers["access-control-allow-origin"] is None


def test_a_copy_is_taken_up_again_where_it_was_left(
    kafka: KafkaConnection, topics_of_two: TopicPlan, tmp_path: Path
) -> None:
    writer = Writer(kafka, topics_of_two)
    with api(kafka, topics_of_two, tmp_path) as instance:
        writer.list_of("ann", ["old"])
        until(lambda: instance.list_of("ann")["known"], "the list")
    writer.list_of("ann", ["new"])
    writer.list_of("bob", ["tea"])
    writer.close()
    with api(kafka, topics_of_two, tmp_path) as instance:  # ready means level
        assert shown(instance, "ann") == ["new"] and shown(instance, "bob") == ["tea"]


@pytest.fixture
def topics_of_two(prefix: str) -> TopicPlan:
    return TopicPlan(prefix=prefix, partitions=2)
