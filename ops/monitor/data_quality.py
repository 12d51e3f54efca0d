"""Checks whether the feed is good enough to learn from: a model must not be trained on events of a broken feed.

The checks read what the updaters count in each window: `events` are valid events, of which some are `duplicates`;
`dead_letters` are refused records, of which some are `misdated` (ahead of the clock, or much too old); `backward` are
events far behind the newest one; and the events of the busiest user. The scorers add the items that they met for the
first time. A scorer knows only its own events, and those only since it started. So an item is new when no scorer named
it in an earlier window.

A check fails when a share is above its limit and so large a number would also be rare in a feed whose true share is
just at the limit. So two bad events among a few are no fault of the feed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

from scipy.special import bdtrc

from ops.labels import Check
from ops.monitor.windows import MergedWindow

__all__ = ["DataQuality", "DataQualityConfig"]

_HOUR_MS = 3_600_000
_WEEK_HOURS = 168
_SCORER = "scorer"  # the kind of worker that reports new items
_RARE = 0.01
_MOST_ITEMS = 1_000_000  # most items that are remembered, about 100 MB


@dataclass(frozen=True)
class DataQualityConfig:
    rate: float = 3.0
    """Factor, up or down, by which the rate of events may differ from what is usual."""
    dead_letters: float = 0.01
    """Largest share of records that are refused."""
    duplicates: float = 0.05
    """Largest share of duplicates."""
    user_share: float = 0.05
    """Largest share of a window's events that one user may send; more is a flood that freezes training."""
    misdated: float = 0.001
    """Largest share of events with an implausible time."""
    backward: float = 0.05
    """Largest share of events that lie far behind the newest one."""
    new_items: float = 0.10
    """Largest share of events on items that are new; a real launch is few items with many events."""
    least_events: int = 500
    """Events in a window, or usual in one, below which nothing is judged."""
    usual_windows: int = 8
    """Windows that make a usual rate; half of them make that of an hour of the week."""
    kept_windows: int = 96
    """Windows that are remembered."""

    def __post_init__(self) -> None:
        if self.rate <= 1:
            raise ValueError(f"rate is a factor above 1, got {self.rate}")
        for name in ("dead_letters", "duplicates", "user_share", "misdated", "backward", "new_items"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")


class DataQuality:
    """Judges every closed window, and keeps the usual rate of events.

    A rate passes if it is usual for the last day or for this hour of the week. Windows that fail count towards the
    usual rate, too: a feed that has really grown is normal again within half a day, while a burst does not change a
    median.

    >>> from ops.monitor.windows import MergedWindow
    >>> quality = DataQuality(DataQualityConfig())
    >>> sound, flood = {"events": 1000, "duplicates": 3}, {"events": 6000, "duplicates": 4000}
    >>> for number in range(10):
    ...     failed = quality.update(MergedWindow(number * 900_000, {}, sound, {"user_events": 20}))
    >>> sorted(failed), sorted(quality.update(MergedWindow(9_000_000, {}, flood, {"user_events": 4500})))
    ([], ['duplicates', 'rate', 'user_share'])
    """

    def __init__(self, config: DataQualityConfig) -> None:
        self.config = config
        self.failed: dict[Check, str] = {}
        self._recent: deque[int] = deque(maxlen=config.kept_windows)
        self._hourly: dict[int, tuple[float, int]] = {}  # hour of the week -> rate, windows behind it
        self._met: dict[int, None] = {}  # hashes of items, oldest first
        self._without_scorers: int | None = None  # windows since the last with a scorer's part; None before the first

    def update(self, window: MergedWindow) -> dict[Check, str]:
        """The checks that this window fails, each with the figures; also kept in `failed`."""
        config, totals = self.config, window.totals
        events, dead = totals.get("events", 0), totals.get("dead_letters", 0)
        new_items = self._meet(window)
        self.failed = {}
        self._judge_rate(window.start_ms, events)
        if events + dead < config.least_events:
            return self.failed
        limits: dict[Check, tuple[int, int, float]] = {
            "dead_letters": (dead, events + dead, config.dead_letters),
            "duplicates": (totals.get("duplicates", 0), events, config.duplicates),
            "user_share": (window.peaks.get("user_events", 0), events, config.user_share),
            "items": (new_items, events, config.new_items),
        }
        for check, (part, whole, limit) in limits.items():
            self._judge(check, check.replace("_", " "), part, whole, limit)
        self._judge("clock", "events of impossible times", totals.get("misdated", 0), events + dead, config.misdated)
        self._judge("clock", "events far behind the newest", totals.get("backward", 0), events, config.backward)
        if self._without_scorers is not None and 0 < self._without_scorers <= config.kept_windows:
            self.failed.setdefault("items", "no scorer counted the items of this window")
        return self.failed

    def _meet(self, window: MergedWindow) -> int:
        """How many items no scorer has met before this window."""
        if _SCORER in window.kinds:
            self._without_scorers = 0
        elif self._without_scorers is not None:
            self._without_scorers += 1
        met = self._met
        new = window.first_met - met.keys()
        met.update(dict.fromkeys(sorted(new)))
        while len(met) > _MOST_ITEMS:
            del met[next(iter(met))]
        return len(new) + window.totals.get("new_items", 0)

    def _judge(self, check: Check, what: str, part: int, whole: int, limit: float) -> None:
        if part > limit * whole and bdtrc(part - 1, whole, limit) < _RARE:  # the probability of `part` or more
            self.failed[check] = f"{what}: {part} of {whole}, at most {limit:.1%} are sound"

    def _judge_rate(self, start_ms: int, events: int) -> None:
        factor, hour = self.config.rate, start_ms // _HOUR_MS % _WEEK_HOURS
        before, known = self._hourly.get(hour, (float(events), 0))
        usual = [before] if known >= self.config.usual_windows // 2 else []
        if len(self._recent) >= self.config.usual_windows:
            usual.append(float(median(self._recent)))
        busy = max([events, *usual]) >= self.config.least_events  # else a burst of one user would be a change of rate
        if usual and busy and not any(rate / factor <= events <= rate * factor for rate in usual):
            self.failed["rate"] = f"{events} events, usual are about {usual[-1]:.0f}"
        self._recent.append(events)
        self._hourly[hour] = 0.75 * before + 0.25 * events, known + 1
