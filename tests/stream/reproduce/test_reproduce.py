"""Lists of a real scorer made again: by popularity, by a model, by a reranker, by a canary; and what cannot be."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from stream.clients.connection import KafkaConnection
from stream.wire.records import CANARY_SLOT
from stream.wire.topics import TopicPlan
from tests.support.commands import Done, freshet
from tests.support.small_world import SmallWorld, small_world

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

USERS = 40
SETTINGS = """
[events.view]
strength = 0.2
hides = "never"

[events.return]
negative = true
"""


def reproduce(world: SmallWorld, *arguments: str, journals: Path | None = None) -> Done:
    folder = journals or world.folder / "scorer"
    command = (*world.options, "reproduce", "--prefix", world.plan.prefix, "--journals", str(folder), "--device", "cpu")
    environment = {"FRESHET_BOOTSTRAP_SERVERS": world.kafka.bootstrap_servers}
    return freshet(*command, *arguments, environment=environment)


def all_the_same(world: SmallWorld, *arguments: str, lists: int = USERS) -> list[dict]:
    done = reproduce(world, "--all", "--json", *arguments)
    outcomes = json.loads(done.output)
    others = [outcome for outcome in outcomes if outcome["verdict"] != "same"]
    assert not others, others[:3]
    assert (done.exit_code, len(outcomes)) == (0, lists)
    assert {outcome["parts"]["history"] for outcome in outcomes} == {"merged from the log"}
    assert max(outcome["largest_difference"] for outcome in outcomes) <= 1e-6
    return outcomes


def test_every_list_is_made_again(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    """Whatever it was made by; also after the scorer was killed, and at a moment that is over."""
    (tmp_path / "freshet.toml").write_text(SETTINGS)
    options = ("--config", str(tmp_path / "freshet.toml"))
    with small_world(kafka, plan, tmp_path, options) as world:
        kinds = ("view", "buy", "return")
        world.send(400, USERS, kinds)
        world.until_answered()
        assert {outcome["model"] for outcome in all_the_same(world)} == {""}
        without_model_ms = int(time.time() * 1000)

        world.serves("live", world.announce(reranked=False))
        world.send(300, USERS, kinds)
        world.until_answered()
        outcomes = all_the_same(world)
        assert "in its batch, by its model alone" in {outcome["parts"]["scored"] for outcome in outcomes}

        reranked = world.announce(reranked=True)
        world.serves("live", reranked)
        world.send(300, USERS, kinds)
        world.until_answered(reranked)
        outcomes = all_the_same(world)
        assert "in its batch, by what its scorer had counted" in {outcome["parts"]["scored"] for outcome in outcomes}

        # What may not be listed any more leaves the lists that were published.
        popular = outcomes[0]["served"][0]["item"]
        world.say(popular, available=False)
        world.until(
            lambda: not any(popular in [i.item for i in one.items] for one in world.lists().values()), "renewed lists"
        )
        renewed = all_the_same(world)
        assert any(outcome["parts"].get("left out since") == popular for outcome in renewed)
        world.say("i1", until=int(time.time() * 1000) + 400)

        # A life of the scorer begins where the one before ended, as far as its files tell.
        world.end("scorer", kill=True)
        world.start("scorer")
        world.send(200, USERS, kinds)
        canary = world.announce(reranked=True, slot=CANARY_SLOT, share=0.5)
        world.serves(CANARY_SLOT, canary)
        world.forget("u3")
        world.until(lambda: "u3" not in world.lists(), "the deletion")
        world.send(400, USERS, kinds)
        world.until_answered(canary)
        outcomes = all_the_same(world, lists=len(world.lists()))
        assert {outcome["variant"] for outcome in outcomes} >= {"control", "treatment"}

        then = all_the_same(world, "--at", str(without_model_ms))
        assert {outcome["model"] for outcome in then} == {""}
        shown = reproduce(world, "--user", "u7")
        assert shown.exit_code == 0
        assert shown.output.startswith("u7: same, written ")


def test_what_differs_and_what_cannot_be_made_again_is_said(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    with small_world(kafka, plan, tmp_path) as world:
        plain = world.announce(reranked=False)
        world.serves("live", plain)
        world.send(150, 5)
        world.until_answered(plain)
        nowhere = tmp_path / "nowhere"
        alone = json.loads(reproduce(world, "--user", "u1", "--json", journals=nowhere).output)[0]
        assert alone["verdict"] == "same"
        assert alone["parts"]["scored"].startswith("alone, by its model, which rounds otherwise: the journal ")

        reranked = world.announce(reranked=True)
        world.serves("live", reranked)
        world.send(150, 5)
        world.until_answered(reranked)
        done = reproduce(world, "--user", "u1", journals=nowhere)
        assert done.exit_code == 2
        assert "not tried" in done.output
        assert "the second stage, by what its scorer had counted then: the journal" in done.output

        done = reproduce(world, "--user", "nobody")
        assert (done.exit_code, done.output.splitlines()[0]) == (2, "nobody: not tried: no list of the user is there")
        before = reproduce(world, "--user", "u1", "--at", "2001-02-03T04:05:06")
        assert before.exit_code == 2
        assert "there was none, or compaction removed it, and no journal tells of it" in before.output

        world.options = ("--set", "scorer.lists.list_items=7")
        done = reproduce(world, "--user", "u1")
        world.options = ()
        assert done.exit_code == 2
        assert "other settings" in done.output

        # Somebody changes a score.
        found = json.loads(reproduce(world, "--user", "u1", "--json").output)[0]
        record = world.record("u1")
        assert record.value is not None
        changed = json.loads(record.value)
        changed["items"][2]["score"] += 1e-4
        producer = KafkaProducer(**kafka.kafka_python())

        def publish(body: dict[str, Any]) -> None:
            value, at, headers = json.dumps(body).encode(), record.partition, list(record.headers)
            producer.send(plan.recommendations, value, key=b"u1", partition=at, headers=headers).get(10)

        publish(changed)
        done = reproduce(world, "--user", "u1")
        assert done.exit_code == 1
        item = found["served"][2]
        assert f"place 3: {item['item']} " in done.output

        # A pilot made it with settings that no journal names; what control gets is made as everybody's lists are.
        for variant, said in (("b", "variant b of pilot plain, whose settings no journal names"), ("control", "same")):
            piloted = json.loads(record.value) | {"pilot": {"name": "plain", "variant": variant, "stage": 1}}
            publish(piloted)
            done = reproduce(world, "--user", "u1")
            assert (done.exit_code, said in done.output) == (2 if variant == "b" else 0, True), done

        # A list of another hand does not say what it was made of.
        producer.send(plan.recommendations, record.value, key=b"u1", partition=record.partition).get(10)
        producer.close()
        done = reproduce(world, "--user", "u1")
        assert done.exit_code == 2
        assert "does not say what lists are made of" in done.output

        shutil.rmtree(tmp_path / "artifacts" / reranked)
        done = reproduce(world, "--user", "u2")
        assert done.exit_code == 2
        assert f"the artifact of {reranked}" in done.output
