"""What a scorer reports about its lists: to the drift monitor's windows, to its own detectors, to the metrics.

Everything here runs on the scoring thread and uses neither Kafka nor the store of lists. Every event and every list
counts towards drift detection. Two kinds of costlier work are limited per second: judging lists, and ranking with the
previous model. A verdict needs a certain number of events, however many arrive. The figures of lists come from a fixed
share of the users, chosen by hash, so that of one user's consecutive lists either all are measured or none.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Sequence
from typing import TypeVar

from model.recommend import Recommender
from ops.labels import Variant
from ops.metrics import ScorerMetrics, Tally
from ops.monitor.beyond_accuracy import ItemPopularity, ListWindow
from ops.monitor.detectors import Adwin, McNemarEvidence
from ops.monitor.quality import OutcomeMonitor
from ops.monitor.signals import ScorerSignals
from ops.monitor.windows import WindowCounter
from stream.scorer.allowance import Allowance
from stream.scorer.config import ListSignalsConfig
from stream.scorer.models import Models
from stream.wire.records import CANARY_VARIANT
from stream.wire.windows_topic import worker_name

__all__ = ["ListSignals"]

_Of = TypeVar("_Of")

HIT_RANKS = 10  # an item at one of these ranks is a hit in every comparison of two lists


class ListSignals:
    """`tally` holds what is counted for every event; the owner of the tally flushes it."""

    def __init__(self, config: ListSignalsConfig, metrics: ScorerMetrics, tally: Tally) -> None:
        self.config, self._metrics, self._tally = config, metrics, tally
        self.window_signals = ScorerSignals(WindowCounter(worker_name("scorer"), config.windows), metrics)
        self._outcomes = OutcomeMonitor(config.quality)
        Adwin()  # imports river, which takes a while, before there is traffic
        self._live = ""
        self._evidence = McNemarEvidence(config.quality.rollback_alpha)
        self._popularity: ItemPopularity | None = None
        self._lists: dict[Variant, ListWindow] = {}
        self._catalogues: dict[Variant, int] = {}
        self._taken = 0
        self._judging, self._shadowing = Allowance(config.judged_per_second), Allowance(config.shadow_per_second)
        self._random = random.Random(0)

    def follow(self, models: Models) -> None:
        """Other models answer from now on."""
        live, reference = models.live, models.reference
        items: dict[Variant, Recommender | None] = {
            "control": live,
            "popularity": live,
            CANARY_VARIANT: models.canary,
            "previous_shadow": models.previous,
        }
        self._catalogues = {variant: len(model.items) for variant, model in items.items() if model is not None}
        share = models.canary_share if models.canary is not None else 0.0
        self._metrics.canary_ratio.set(share)
        if models.canary is None:
            self._lists.pop(CANARY_VARIANT, None)
        version = live.version if live is not None else ""
        if version == self._live:
            return
        self._live = version
        self._outcomes.promoted()
        self._evidence = McNemarEvidence(self.config.quality.rollback_alpha)
        self._popularity = None if reference is None else ItemPopularity.of(reference.counts)
        if reference is None:
            self.window_signals.follow(version, None, "")
        else:
            self.window_signals.follow(version, reference.bins, reference.epoch, reference.scores)

    # -- before a list: what an event says about the list before it ---------------------------------------------------

    def to_judge(self, users: Sequence[_Of], now: float) -> Sequence[_Of]:
        """The users whose last lists are judged by their new events at `now` seconds: all of `users`, or a sample."""
        taken = self._judging.take(len(users), now)
        return users if taken == len(users) else self._random.sample(users, taken)

    def event(self, item: str, time_ms: int, in_vocabulary: bool, first_met: bool) -> None:
        self._tally.inc(self._metrics.item_events["in_vocabulary" if in_vocabulary else "out_of_vocabulary"])
        if first_met:
            self._tally.inc(self._metrics.new_items)
        self.window_signals.event(item, time_ms, in_vocabulary, first_met)

    def control(self, user: bytes, time_ms: int, rank: int, popularity: int, previous: int | None) -> None:
        """Ranks of one event's item in the live model's list, in that of popularity and, if known, of the previous
        model."""
        hit, popular = rank <= HIT_RANKS, popularity <= HIT_RANKS
        self._detect(user, time_ms, "control", hit)
        self._detect(user, time_ms, "popularity", popular)
        shadow = None
        if previous is not None:
            shadow = previous <= HIT_RANKS
            self._detect(user, time_ms, "previous_shadow", shadow)
            self._evidence.add(int(shadow and not hit), int(hit and not shadow))
        self.window_signals.outcome(time_ms, hit, popular, shadow)

    def canary(self, user: bytes, time_ms: int, version: str, rank: int, live: int | None) -> None:
        """The rank of an event's item in a canary's list and, if known, in the list that the live model would have
        shown."""
        hit = rank <= HIT_RANKS
        self._detect(user, time_ms, CANARY_VARIANT, hit)
        if live is not None:
            self.window_signals.canary(time_ms, version, hit, live <= HIT_RANKS)

    def _detect(self, user: bytes, time_ms: int, variant: Variant, hit: bool) -> None:
        for found in self._outcomes.update(user, time_ms, variant, hit):
            self._metrics.prequential_detections[found.variant, found.detector, found.direction].inc()

    # -- a list --------------------------------------------------------------------------------------------------------

    def to_shadow(self, users: Sequence[_Of], now: float) -> Sequence[_Of]:
        """The users who are also ranked by the previous model at `now` seconds: a sample of `users`, or nobody.

        A large batch gives a sample only when a full second's allowance can be taken at once, because ranking few users
        costs almost as much as ranking many.
        """
        wanted = min(len(users), self._shadowing.most)
        if not wanted or self._shadowing.left(now) < wanted:
            return ()
        return self._random.sample(users, self._shadowing.take(wanted, now))

    def published(
        self, user: bytes, time_ms: int, variant: Variant, items: Sequence[str], model: Recommender | None
    ) -> None:
        """A new list for a user whose newest event is at `time_ms`; `model` made it."""
        popularity = self._popularity
        if popularity is None or _hash(b"freshet-figures:", user) >= self.config.figures_share:
            return
        if model is not None and variant == "control":
            self.window_signals.shown(time_ms, model.version, items)
        self._taken += 1
        vectors = None
        if model is not None and items and self._taken % self.config.distance_every == 0:
            columns = model.items.columns(items)
            vectors = model.vectors(columns[columns >= 0])  # a reranker also lists what the model does not know
        window = self._lists.get(variant)
        if window is None:
            window = self._lists[variant] = ListWindow()
        window.add(user, items, popularity, vectors)

    # -- every few seconds ---------------------------------------------------------------------------------------------

    def export(self) -> None:
        """Count what was noted into the windows, and set the gauges."""
        metrics = self._metrics
        self.window_signals.flush()
        metrics.rollback_evidence_ratio.set(self._evidence.ratio)
        for variant, ratio in self._outcomes.cusum_ratios.items():
            metrics.prequential_cusum_ratio[variant].set(ratio)
        for variant, events in self._outcomes.adwin_events.items():
            metrics.prequential_adwin_events[variant].set(events)
        for variant, window in self._lists.items():
            figures = window.figures(self._catalogues.get(variant, 0))
            for gauges, value in (
                (metrics.catalogue_coverage_ratio, figures.coverage),
                (metrics.recommendation_gini_ratio, figures.gini),
                (metrics.recommendation_popularity_ratio, figures.popularity),
                (metrics.recommendation_novelty, figures.novelty),
                (metrics.intra_list_distance_ratio, figures.distance),
                (metrics.list_churn_ratio, figures.churn),
            ):
                if not math.isnan(value):
                    gauges[variant].set(value)


def _hash(salt: bytes, user: bytes) -> float:
    return zlib.crc32(salt + user) / 2**32
