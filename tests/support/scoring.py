"""A scorer without Kafka, in a small world where the right list is known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Hidden, Ranked
from model.rerank.reranker import Reranker
from ops.metrics import ScorerMetrics
from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import StoreConfig
from stream.scorer.config import ListConfig, ListSignalsConfig
from stream.scorer.list_maker import Answer
from stream.scorer.prequential import ShownList
from stream.scorer.requests import Request, coalesce
from stream.scorer.scoring import Scoring
from stream.scorer.shown_lists import Offsets, PartitionLists, ShownLists
from stream.wire.records import NewInteraction, Refresh, RefreshReason

NOW = 1_700_000_000_000
CATALOGUE = tuple("abcdefgh")


class Fixed:
    """A model that likes items in one fixed order, whoever asks; seen items are masked, as in any model."""

    def __init__(self, version: str, order: str, items: tuple[str, ...] = CATALOGUE, fails: type | None = None) -> None:
        self.version, self.items, self._order, self._fails = version, ItemIndex(items), order, fails
        self.reranker: Reranker | None = None
        self.alike: dict[str, str] = {}  # items with the vector of another one

    def terms(self, histories: Histories, wanted: np.ndarray) -> np.ndarray:
        return np.where(wanted[..., None] >= 0, np.float32(0), np.float32(np.nan)).repeat(2, -1)

    def rank(self, histories: Histories, k: int, hidden: Hidden | None = None) -> Ranked:
        if self._fails is not None:
            raise self._fails(f"{self.version} is unsound")
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for row in range(len(histories)):
            seen = set(histories.columns[histories.offsets[row] : histories.offsets[row + 1]].tolist())
            if hidden is not None:
                seen = set(hidden.columns[hidden.rows == row].tolist())
            liked = [c for c in self.items.columns(self._order).tolist() if c not in seen][:k]
            columns[row, : len(liked)] = liked
            scores[row, : len(liked)] = np.arange(len(liked), 0, -1)
        return Ranked(columns, scores)

    def rank_with_terms(
        self, histories: Histories, k: int, hidden: Hidden | None = None
    ) -> tuple[Ranked, Callable[[np.ndarray], np.ndarray]]:
        return self.rank(histories, k, hidden), lambda wanted: self.terms(histories, wanted)

    def vectors(self, columns: np.ndarray, *, centred: bool = False) -> np.ndarray:
        ids = self.items.ids
        every = np.eye(len(ids))[self.items.columns([self.alike.get(item, item) for item in ids])]
        return (every - every.mean(0) if centred else every)[columns]


class World:
    """The scoring of one process, with a clock of its own; every refresh and every list is in partition 0 at the next
    offset."""

    def __init__(self, folder: Path, list_items: int = 3) -> None:
        self.registry = CollectorRegistry()
        self.lists = ShownLists(folder, StoreConfig())
        self.partition = open_partition(self.lists, 0)
        self.now_ms = NOW
        self._metrics = ScorerMetrics(self.registry)
        self.offset = self._published = 0  # of refreshes and lists so far
        self._forgotten_ms: dict[str, int] = {}
        self.configure(ListConfig(list_items))

    def configure(self, config: ListConfig) -> None:
        """Begin again with these settings and the same lists and metrics."""
        self.scoring = Scoring(config, self.lists, self._metrics, lambda: self.now_ms / 1000)

    def request(
        self, user: str, history: str, new: str = "", reason: RefreshReason = "event", weight: float = 1.0
    ) -> Request:
        """`history` is newest first; `new` are those of its items that came now, each with this weight."""
        if reason == "forget":
            self._forgotten_ms[user] = NOW - 1000
        entries = [Entry(NOW - place, item, 1.0) for place, item in enumerate(history)]
        news = tuple(NewInteraction(item, NOW, False, weight) for item in new)
        known = merge_entries(EMPTY, entries, 200, self._forgotten_ms.get(user, 0))
        value = Refresh(reason, self.now_ms, news, codec.encode(known)).encode()
        self.offset += 1
        return Request.decode(0, self.offset, user.encode(), value)

    def serve(self, *requests: Request) -> list[Answer]:
        scored = self.scoring.score(coalesce(requests))
        answers = [*scored.answers, *self.scoring.answer_canary(scored.canary_users)]
        self.now_ms += 5
        first, self._published = self._published, self._published + len(answers)
        users = {answer.request.user: first + place for place, answer in enumerate(answers)}
        offsets = Offsets(users, {0: [(first, self._published)]} if answers else {})
        answers = self.scoring.delivered(answers, scored.before, offsets)
        self.now_ms += 5
        return answers

    def last(self, user: str) -> ShownList | None:
        """The list that is kept of this user."""
        last = self.lists.get([(0, user.encode())]).get(user.encode())
        return None if last is None else last.shown

    def windows(self) -> dict[str, list[int]]:
        """What the drift monitor is given."""
        self.scoring.signals.export()
        found: dict[str, list[int]] = {}
        for record in self.scoring.signals.window_signals.windows.take():
            found |= record.counts
        return found

    def count(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"freshet_{name}", labels)
        assert value is not None
        return value


def open_partition(lists: ShownLists, number: int) -> PartitionLists:
    """A partition of an empty topic, read to its end."""
    partition = lists.open(number, {}, 0, 0, 1_000, NOW)
    partition.reached(0, NOW)
    return partition


def everybody(shadow: float) -> ListConfig:
    """Every user's lists give figures; `shadow` users per second are also ranked by the previous model."""
    return ListConfig(3, signals=ListSignalsConfig(shadow_per_second=shadow, figures_share=1.0))


def names(answer: Answer) -> str:
    return "".join(item.item for item in answer.items)


def shadow_of(answer: Answer) -> Sequence[str]:
    return () if answer.shadow is None else answer.shadow.items
