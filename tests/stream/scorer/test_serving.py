"""Batches of refreshes become the right lists, whatever the models do."""

from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model.batch import Histories
from model.errors import NonFiniteScores
from model.items import ItemIndex
from model.recommend import Ranked
from ops.metrics import ScorerMetrics
from state import codec
from state.history import EMPTY, Entry, History, merge_entries
from state.store import Store
from stream.cli.workers import scorer
from stream.registry.reference import Reference
from stream.scorer.list_signals import ScorerWatchConfig
from stream.scorer.serving import Answer, Models, Request, Server, ServingConfig, coalesce, in_treatment
from stream.scorer.shown_lists import ShownLists
from stream.wire.records import NewInteraction, Recommendation, Refresh, Rejected

NOW = 1_700_000_000_000
CATALOGUE = tuple("abcdefgh")


class Fixed:
    """A model that likes items in one fixed order, whoever asks; seen items are masked, as in any model."""

    def __init__(self, version: str, order: str, items: tuple[str, ...] = CATALOGUE, fails: type | None = None) -> None:
        self.version, self.items, self._order, self._fails = version, ItemIndex(items), order, fails

    def rank(self, histories: Histories, k: int) -> Ranked:
        if self._fails is not None:
            raise self._fails(f"{self.version} is unsound")
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for row in range(len(histories)):
            seen = set(histories.columns[histories.offsets[row] : histories.offsets[row + 1]].tolist())
            liked = [c for c in self.items.columns(self._order).tolist() if c not in seen][:k]
            columns[row, : len(liked)] = liked
            scores[row, : len(liked)] = np.arange(len(liked), 0, -1)
        return Ranked(columns, scores)

    def vectors(self, columns: np.ndarray) -> np.ndarray:
        return np.eye(len(self.items))[columns]


class World:
    """A server with a clock of its own; every refresh is in partition 0 at the next offset."""

    def __init__(self, folder: Path, list_items: int = 3) -> None:
        self.registry = CollectorRegistry()
        self.lists = ShownLists(Store(folder, {}))
        self.now_ms = NOW
        metrics = ScorerMetrics(self.registry)
        self.server = Server(ServingConfig(list_items), self.lists, metrics, lambda: self.now_ms / 1000)
        self.offset = 0

    def request(self, user: str, history: str, new: str = "", reason: str = "event") -> Request:
        """`history` is newest first; `new` are those of its items that came now."""
        entries = [Entry(NOW - place, item, 1.0) for place, item in enumerate(history)]
        news = tuple(NewInteraction(item, NOW, False) for item in new)
        value = Refresh(reason, self.now_ms, news, codec.encode(merge_entries(EMPTY, entries, 200))).encode()
        self.offset += 1
        return Request.decode(0, self.offset, user.encode(), value)

    def serve(self, *requests: Request) -> list[Answer]:
        offsets = [request.offset for request in requests]
        self.lists.advance(0, min(offsets), max(offsets) + 1)
        answers, treated = self.server.score(coalesce(requests))
        self.server.treat(treated)
        self.server.shadow(answers)
        answers += treated
        self.now_ms += 5
        self.server.delivered(answers, self.lists.spans())
        self.now_ms += 5
        return answers

    def count(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"freshet_{name}", labels)
        assert value is not None
        return value


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "lists")
    yield world
    world.lists.close()


def names(answer: Answer) -> str:
    return "".join(item.item for item in answer.items)


def test_without_a_model_popularity_answers_and_says_so(world: World) -> None:
    world.serve(world.request("u", "ab", new="ab"), world.request("v", "a", new="a"))
    (answer,) = world.serve(world.request("w", "b", new="b"))
    assert (names(answer), answer.variant, answer.version) == ("a", "popularity", "")
    published = msgspec.json.decode(answer.value, type=Recommendation)
    assert (published.user, published.variant, published.model, published.as_of) == ("w", "popularity", "", NOW)
    assert world.count("fallback_lists_total", reason="no_model") == 3


def test_a_model_answers_without_what_the_user_knows(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abcdefgh"))
    (answer,) = world.serve(world.request("u", "bx", new="b"))
    assert (names(answer), answer.variant, answer.version) == ("acd", "control", "v1")


def test_a_user_of_unknown_items_gets_popularity(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abcdefgh"))
    cold, warm = world.serve(world.request("u", "xyz", new="x"), world.request("v", "a", new="a"))
    assert (cold.variant, cold.version, warm.variant) == ("popularity", "", "control")
    assert world.count("fallback_lists_total", reason="cold_user") == 1


def test_an_exhausted_catalogue_gives_a_shorter_list(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abcdefgh"))
    (answer,) = world.serve(world.request("u", "abcdefg", new="a"))
    assert names(answer) == "h"


def test_unsound_scores_are_never_published(world: World) -> None:
    unsound, sound = Fixed("v2", "abc", fails=NonFiniteScores), Fixed("v1", "hgfedcba")
    world.server.models = Models(live=unsound, previous=sound)
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert (names(answer), answer.version) == ("hgf", "v1")
    world.server.models = Models(live=unsound)
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert answer.variant == "popularity"
    assert world.count("nonfinite_scores_total", slot="live") == 2
    assert world.count("fallback_lists_total", reason="error") == 1


def test_a_model_that_breaks_does_not_stop_the_stream(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abc", fails=IndexError))
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert answer.variant == "popularity"
    assert world.count("scoring_failures_total", reason="model") == 1


def test_the_candidate_answers_its_share_of_the_users(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abcd"), candidate=Fixed("v2", "dcba"), candidate_share=0.3)
    users = [f"u{n}" for n in range(300)]
    answers = world.serve(*(world.request(user, "h") for user in users))
    treated = {a.request.user for a in answers if a.variant == "treatment"}
    assert treated == {user.encode() for user in users if in_treatment(user.encode(), 0.3)}
    assert 60 < len(treated) < 120
    assert all(
        (names(a), a.version) == (("dcb", "v2") if a.request.user in treated else ("abc", "v1")) for a in answers
    )
    assert not in_treatment(b"u", 0.0) and in_treatment(b"u", 1.0)


def test_nobody_else_waits_for_the_candidate(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abcd"), candidate=Fixed("v2", "dcba"), candidate_share=0.3)
    requests = [world.request(f"u{n}", "h") for n in range(100)]
    world.lists.advance(0, 1, 101)
    others, treated = world.server.score(requests)
    assert others and all(answer.value is not None for answer in others)
    assert treated and all(answer.value is None for answer in treated)


def test_an_unsound_candidate_leaves_its_users_to_live(world: World) -> None:
    unsound = Fixed("v2", "dcba", fails=NonFiniteScores)
    world.server.models = Models(live=Fixed("v1", "abcd"), candidate=unsound, candidate_share=1.0)
    (answer,) = world.serve(world.request("u", "h"))
    assert (names(answer), answer.version, answer.variant) == ("abc", "v1", "control")
    assert answer.shadow == () and answer.shadow_model is None


class TestQuality:
    def test_an_event_is_asked_of_the_list_before_it(self, world: World) -> None:
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))
        world.serve(world.request("u", "h", new="h"))  # shown: abc
        world.serve(world.request("u", "bh", new="b"))  # rank 2; shown: acd
        world.serve(world.request("u", "gbh", new="g"))  # not shown
        outcomes = {
            outcome: world.count("prequential_events_total", variant="control", outcome=outcome)
            for outcome in ("hit", "miss", "no_list")
        }
        assert outcomes == {"hit": 1, "miss": 1, "no_list": 0}
        assert world.count("prequential_events_total", variant="popularity", outcome="no_list") == 1
        ranks = "prequential_rank_bucket"
        assert world.count(ranks, variant="control", slot="live", le="1.0") == 0
        assert world.count(ranks, variant="control", slot="live", le="3.0") == 1
        assert world.count(ranks, variant="control", slot="live", le="50.0") == 1
        assert world.count("prequential_rank_count", variant="control", slot="live") == 2
        assert world.count("prequential_ndcg_total", variant="control", slot="live") == pytest.approx(1 / np.log2(3))

    def test_popularity_answers_the_same_event_from_the_same_moment(self, world: World) -> None:
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))
        world.serve(*(world.request(f"w{n}", "gh", new="g") for n in range(5)))
        world.serve(world.request("u", "h", new="h"))
        world.serve(world.request("u", "gh", new="g"))  # popularity had it first, the model not at all
        rank = {"slot": "live", "variant": "popularity", "le": "1.0"}
        assert world.count("prequential_rank_bucket", **rank) == 1
        assert world.count("prequential_events_total", variant="popularity", outcome="hit") == 1
        assert world.count("prequential_events_total", variant="control", outcome="miss") == 1
        world.serve(world.request("u", "egh", new="e"))  # nobody met it before: its own event must not help
        assert world.count("prequential_events_total", variant="popularity", outcome="miss") == 1

    def test_only_a_list_from_before_the_event_counts(self, world: World) -> None:
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))
        early = world.request("u", "ah", new="a")  # arrived before the list below was published
        world.serve(world.request("u", "h", new="h"))
        world.serve(early)
        assert world.count("prequential_events_total", variant="control", outcome="no_list") == 1

    def test_a_list_speaks_for_the_model_that_made_it(self, world: World) -> None:
        first, second = Fixed("v1", "abcdefgh"), Fixed("v2", "hgfedcba")
        world.server.models = Models(live=first)
        world.serve(world.request("u", "h", new="h"))
        world.server.models = Models(live=second, previous=first)
        world.serve(world.request("u", "ah", new="a"))
        assert world.count("prequential_rank_count", variant="control", slot="previous") == 1
        assert world.count("prequential_rank_count", variant="control", slot="live") == 0

    def test_repeats_and_unknown_items_are_not_held_against_the_model(self, world: World) -> None:
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))
        world.serve(world.request("u", "h", new="h"))
        world.serve(world.request("u", "xh", new="x"))
        again = world.request("u", "hx")
        again = Request(0, again.offset, b"u", again.history, "event", (NewInteraction("h", NOW, True),), (NOW + 99,))
        world.serve(again)
        assert world.count("prequential_events_total", variant="control", outcome="out_of_vocabulary") == 1
        assert world.count("prequential_events_total", variant="control", outcome="repeat") == 1
        assert world.count("prequential_rank_count", variant="control", slot="live") == 0


class TestCoalescing:
    def test_the_newest_history_answers_for_all_that_came(self, world: World) -> None:
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))
        first, second = world.request("u", "h", new="h"), world.request("u", "ah", new="a")
        model = world.request("u", "ah", reason="model")
        (answer,) = world.serve(first, second, model)
        assert names(answer) == "bcd"
        assert (answer.request.reason, answer.request.arrivals_ms) == ("event", (NOW, NOW))
        assert [event.item for event in answer.request.new] == ["h", "a"]
        assert world.count("event_to_recommendation_seconds_count") == 2
        assert world.count("event_to_recommendation_seconds_sum") == pytest.approx(0.010, rel=1e-3)

    def test_forgetting_wins_and_what_follows_starts_over(self, world: World) -> None:
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))
        world.serve(world.request("u", "h", new="h"))
        forget, event = world.request("u", "", reason="forget"), world.request("u", "a", new="a")
        (answer,) = world.serve(forget, event)
        assert names(answer) == "bcd"
        assert world.count("prequential_events_total", variant="popularity", outcome="no_list") == 2


def test_a_forgotten_user_leaves_a_tombstone_and_no_list(world: World) -> None:
    world.server.models = Models(live=Fixed("v1", "abcdefgh"))
    world.serve(world.request("u", "h", new="h"))
    (answer,) = world.serve(world.request("u", "", reason="forget"))
    assert answer.value is None
    assert world.lists.get([(0, b"u")]) == [None]
    assert world.count("recommendations_published_total", variant="control") == 1


def test_lists_count_as_shown_only_once_delivered(world: World) -> None:
    request = world.request("u", "h", new="h")
    world.lists.advance(0, request.offset, request.offset + 1)
    world.server.score([request])
    assert world.lists.get([(0, b"u")]) == [None]


def test_popularity_survives_a_restart(world: World) -> None:
    world.serve(world.request("u", "ab", new="ab"))
    world.server.save_popularity()
    again = Server(ServingConfig(3), world.lists, ScorerMetrics(CollectorRegistry()))
    assert [item for item, _ in again.popularity.top((), 5)] == ["b", "a"]


GOOD = Refresh("event", NOW, (), codec.encode(History())).encode()


@pytest.mark.parametrize(
    ("user", "value", "reason"),
    [
        (None, GOOD, "schema"),
        (b"u", None, "schema"),
        (b"\xff", GOOD, "schema"),
        (b"u", b"", "decode"),
        (b"u", b"\x94\xa5event", "decode"),
        (b"u", msgspec.msgpack.encode(["later", NOW, [], b""]), "schema"),
        (b"u", Refresh("event", NOW, (), b"\x63").encode(), "schema"),
    ],
)
def test_a_bad_refresh_is_refused_with_its_reason(user: bytes | None, value: bytes | None, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        Request.decode(0, 0, user, value)
    assert refused.value.reason == reason


def test_the_command_line_watches_as_much_as_the_configuration_says() -> None:
    given = {name: parameter.default for name, parameter in signature(scorer).parameters.items()}
    named = [field for field in fields(ScorerWatchConfig) if field.name in given]
    assert len(named) == 3
    assert all(field.default == given[field.name] for field in named)


class TestWatching:
    @staticmethod
    def windows(world: World) -> dict[str, list[int]]:
        world.server.watch.show()
        found: dict[str, list[int]] = {}
        for record in world.server.watch.signals.windows.take():
            found |= record.counts
        return found

    @staticmethod
    def everybody(shadow: float) -> ServingConfig:
        return ServingConfig(3, watch=ScorerWatchConfig(shadow_per_second=shadow, figures_share=1.0))

    def test_the_previous_model_answers_the_same_event(self, world: World) -> None:
        world.server = Server(self.everybody(1.0), world.lists, world.server._metrics, lambda: world.now_ms / 1000)
        world.server.models = Models(live=Fixed("v2", "abcdefgh"), previous=Fixed("v1", "hgfedcba"))
        world.serve(world.request("u", "d", new="d"))  # shown abc; the previous one would have shown hgf
        world.serve(world.request("u", "gd", new="g"))
        found = self.windows(world)
        assert found["against_previous v2"] == [0, 1, 0, 0]  # only the previous one hit
        assert found["against_popularity v2"] == [1, 0, 0, 0]
        assert world.count("prequential_rank_count", variant="previous_shadow", slot="previous") == 1
        assert world.count("prequential_events_total", variant="previous_shadow", outcome="hit") == 1
        assert world.count("rollback_evidence_ratio") > 0.001

    def test_the_previous_model_is_asked_by_the_clock_not_by_the_lists(self, world: World) -> None:
        world.server = Server(self.everybody(4.0), world.lists, world.server._metrics, lambda: world.now_ms / 1000)
        world.server.models = Models(live=Fixed("v2", "abcdefgh"), previous=Fixed("v1", "hgfedcba"))

        def shadowed(users: int) -> int:
            answers = world.serve(*(world.request(f"u{n}", "d") for n in range(users)))
            return sum(answer.shadow != () for answer in answers)

        assert [shadowed(100), shadowed(100), shadowed(1)] == [4, 0, 0]
        world.now_ms += 500
        assert [shadowed(100), shadowed(1), shadowed(1), shadowed(1)] == [0, 1, 1, 0]
        world.now_ms += 60_000
        assert [shadowed(3), shadowed(3)] == [3, 0]

    def test_lists_are_judged_by_the_clock_and_drift_by_every_event(self, world: World) -> None:
        config = ServingConfig(3, watch=ScorerWatchConfig(judged_per_second=4.0))
        world.server = Server(config, world.lists, world.server._metrics, lambda: world.now_ms / 1000)
        world.server.models = Models(live=Fixed("v1", "abcdefgh"))

        def outcomes() -> float:
            names = ("hit", "miss", "no_list")
            return sum(world.count("prequential_events_total", variant="control", outcome=name) for name in names)

        def judged(users: int) -> float:
            before = outcomes()
            world.serve(*(world.request(f"u{n}", "ad", new="a") for n in range(users)))
            return outcomes() - before

        world.serve(*(world.request(f"u{n}", "d") for n in range(10)))
        assert [judged(10), judged(1)] == [4, 0]
        world.now_ms += 500
        assert judged(1) == 1
        self.windows(world)
        assert world.count("item_events_total", status="in_vocabulary") == 12

    def test_nobody_is_asked_of_a_previous_model_that_is_live_again(self, world: World) -> None:
        world.server = Server(self.everybody(1.0), world.lists, world.server._metrics, lambda: world.now_ms / 1000)
        world.server.models = Models(live=Fixed("v1", "abcdefgh"), previous=Fixed("v1", "abcdefgh"))
        (answer,) = world.serve(world.request("u", "d", new="d"))
        assert answer.shadow == ()

    def test_a_candidate_is_paired_with_what_live_would_have_shown(self, world: World) -> None:
        world.server.models = Models(
            live=Fixed("v1", "abcdefgh"), candidate=Fixed("v2", "hgfedcba"), candidate_share=1.0
        )
        world.serve(world.request("u", "d", new="d"))
        world.serve(world.request("u", "gd", new="g"))  # in the candidate's list only
        world.serve(world.request("u", "agd", new="a"))  # in live's only
        found = self.windows(world)
        assert found["against_live v2"] == [0, 1, 1, 0]
        assert "against_popularity v1" not in found

    def test_each_user_of_an_experiment_is_counted_once(self, world: World) -> None:
        live, users = Fixed("v1", "abcdefgh"), [f"u{n}" for n in range(200)]
        for version in ("v2", "v3"):
            world.server.models = Models(live=live, candidate=Fixed(version, "hgfedcba"), candidate_share=0.3)
            for _ in range(2):
                world.serve(*(world.request(user, "d") for user in users))
        treated = sum(in_treatment(user.encode(), 0.3) for user in users)
        assert world.count("experiment_users_total", variant="treatment") == 2 * treated
        assert world.count("experiment_users_total", variant="control") == 2 * (200 - treated)
        assert world.count("experiment_treatment_ratio") == 0.3

    def test_lists_have_figures_and_scores_have_bins(self, world: World) -> None:
        world.server = Server(self.everybody(0.0), world.lists, world.server._metrics, lambda: world.now_ms / 1000)
        histories = [History(("a", "b"), (2, 1), (1.0, 1.0))] * 10
        reference = Reference.fit("v1", histories, np.array([[3.0, 1.0]] * 10), None)
        world.server.models = Models(live=Fixed("v1", "abcdefgh"), reference=reference)
        world.serve(*(world.request(f"u{n}", "h", new="h") for n in range(4)))
        world.serve(world.request("u0", "ah", new="a"))
        found = self.windows(world)
        assert world.count("catalogue_coverage_ratio", variant="control") == 4 / 8  # abc, and bcd
        assert world.count("list_churn_ratio", variant="control") == pytest.approx(0.5)
        assert world.count("recommendation_novelty", variant="control") == 1.0  # a and b are half of what is met each
        assert sum(found["score_top1 v1"]) == 5 and sum(found["item_popularity v1"]) == 5
        assert found["unknown_item_rate"] == [5, 0]
        assert world.count("item_events_total", status="in_vocabulary") == 5
