"""The result of a backtest: figures of every arm, over time and by part of the questions, compared in pairs.

Figures count from the first model of the system on; before that all models answer with the same popularity list.

Legend: A arms, n events of the log, Q questions that count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluate import Interval, confidence_sequence
from model.study.figures import NEXT_METRICS, next_figures
from model.study.interactions import Interactions, Timeline
from model.study.report import write_records
from model.study.successive import slices_by_length
from stream.backtest.event_log import EventLog
from stream.backtest.saved import UNASKED
from stream.backtest.system import RoundReport

__all__ = ["Outcome"]

_DAY_MS = 86_400_000
_ITEM_AGES = {"new item": (-1, 0), "item under 1 day": (0, 1), "under 7 days": (1, 7), "under 30 days": (7, 30)}
_PERIODS = (("M", 60), ("W", 14), ("D", 1.5), ("h", 0))  # numpy's unit, and the least span of the questions in days


@dataclass(frozen=True)
class Outcome:
    """`ranks` int8 [A, n] are -1 for events that were no question."""

    log: EventLog
    arms: Sequence[str]
    ranks: np.ndarray
    train_seconds: Mapping[str, float]
    rank_seconds: Mapping[str, float]
    rounds: Mapping[str, Sequence[RoundReport]]  # by arm that holds rounds

    @cached_property
    def first_event(self) -> int:
        """The first event that the system's first model could answer; n if there was no model."""
        promoted = [report.event for report in self.rounds["system"] if report.outcome == "promoted"]
        return promoted[0] if promoted else len(self.log)

    @cached_property
    def events(self) -> np.ndarray:
        """int64 [Q]: places in the log of the questions that count; all questions, if there was no model."""
        asked = np.flatnonzero(np.asarray(self.ranks[0]) != UNASKED)
        return asked[asked >= self.first_event] if self.first_event < len(self.log) else asked

    def figures(self, arm: str) -> np.ndarray:
        """float64 [4, Q] in the order of `NEXT_METRICS`."""
        return next_figures(np.asarray(self.ranks[self.arms.index(arm)])[self.events].astype(np.int64))

    def periods(self) -> np.ndarray:
        """str [Q]: the month, week, day or hour of each question, whichever suits the span of the questions."""
        times_ms = self.log.times_ms[self.events]
        span_days = (int(times_ms[-1]) - int(times_ms[0])) / _DAY_MS if len(times_ms) else 0.0
        unit = next(unit for unit, least in _PERIODS if span_days >= least)
        return times_ms.astype("datetime64[ms]").astype(f"datetime64[{unit}]").astype(str)

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        """bool [Q] by name: questions by history length, by the age of the item, and repeats."""
        log, events = self.log, self.events
        if not len(events):
            return {}
        timeline = Timeline(Interactions(log.name, log.users, log.items, log.times_ms, log.weights, log.item_ids))
        first_ms = np.full(len(log.item_ids), np.iinfo(np.int64).max)
        np.minimum.at(first_ms, log.items, log.times_ms)
        age_days = (log.times_ms[events] - first_ms[log.items[events]]) / _DAY_MS
        parts = slices_by_length(timeline.lengths(events))
        parts |= {name: (age_days > above) & (age_days <= most) for name, (above, most) in _ITEM_AGES.items()}
        parts["older item"] = age_days > _ITEM_AGES["under 30 days"][1]
        repeats = timeline.repeats(events)
        return parts | {"first meeting": ~repeats, "repeat": repeats}

    def difference(self, arm: str, against: str, metric: int, within: np.ndarray | None = None) -> Interval:
        """`arm` - `against`, with the last bounds of a confidence sequence, which may be read at any time."""
        rows = slice(None) if within is None else within
        mean, distance = confidence_sequence((self.figures(arm)[metric] - self.figures(against)[metric])[rows])
        return Interval(float(mean[-1]), float(mean[-1] - distance[-1]), float(mean[-1] + distance[-1]))

    def records(self, against: str) -> list[dict[str, Any]]:
        """One flat record per part and arm; the parts are the whole, the periods, and those of `parts`."""
        events = self.events
        if not len(events):
            return []
        periods = self.periods()
        parts = {"all": np.ones(len(events), dtype=bool)}
        parts |= {period: periods == period for period in dict.fromkeys(periods.tolist())}
        parts |= self.parts
        some = {name: part for name, part in parts.items() if part.any()}
        return [self._record(name, part, arm, against) for name, part in some.items() for arm in self.arms]

    def _record(self, name: str, part: np.ndarray, arm: str, against: str) -> dict[str, Any]:
        figures = self.figures(arm)[:, part]
        record: dict[str, Any] = {"part": name, "questions": int(part.sum()), "arm": arm}
        for metric, title in enumerate(NEXT_METRICS):
            record[title] = float(figures[metric].mean())
            interval = None if arm == against else self.difference(arm, against, metric, part)
            for bound in ("mean", "low", "high"):
                record[f"{title} difference {bound}"] = "" if interval is None else getattr(interval, bound)
        rounds = self.rounds.get(arm, ())
        record["train_seconds"] = self.train_seconds[arm]
        record["rank_seconds"] = self.rank_seconds.get(arm, 0.0)
        record["rounds"] = len(rounds)
        record["promoted"] = sum(report.outcome == "promoted" for report in rounds)
        return record

    def write_csv(self, path: Path, against: str) -> None:
        """One line per record, see `records`."""
        write_records(path, self.records(against))

    def write_png(self, path: Path, against: str) -> None:
        """Plot NDCG@10 by period, and each arm's difference so far with its confidence sequence. Needs matplotlib
        (`pip install freshet[plots]`)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 8), layout="constrained")
        above, below = figure.subplots(2)
        periods = self.periods()
        names = list(dict.fromkeys(periods.tolist()))
        ndcg = NEXT_METRICS.index("NDCG@10")
        times = self.log.times_ms[self.events].astype("datetime64[ms]")
        reference = self.figures(against)[ndcg]
        for place, arm in enumerate(self.arms):
            values, colour = self.figures(arm)[ndcg], f"C{place}"
            above.plot(names, [values[periods == name].mean() for name in names], marker="o", color=colour, label=arm)
            if arm == against:
                continue
            mean, distance = confidence_sequence(values - reference)
            shown = np.linspace(min(100, len(mean) - 1), len(mean) - 1, 400).astype(int)
            below.plot(times[shown], mean[shown], color=colour, label=f"{arm} - {against}")
            below.fill_between(
                times[shown], (mean - distance)[shown], (mean + distance)[shown], color=colour, alpha=0.15, linewidth=0
            )
        above.set(ylabel="NDCG@10", title=f"{self.log.name}: every event asked before it was learnt")
        above.tick_params(axis="x", rotation=30)
        below.axhline(0, color="black", linewidth=0.8)
        below.set(ylabel="difference in NDCG@10 so far, 95 % at all times")
        for axes in (above, below):
            axes.legend(fontsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)
