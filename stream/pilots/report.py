"""The report of a pilot: figures of every variant, its difference from control, and whether it does harm.

A variant is *better* when the hit rate of its users is above that of control's users. It does *harm* when it is below,
or when control's lists would have had a higher hit rate for the events of the variant's own users. This second
comparison finds a difference much sooner. It is biased in favour of the variant, because users tend to choose from the
lists that they were shown, and therefore cannot prove that the variant is better. All intervals of the hit rate
together hold with a probability of 95 %, whenever they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from scipy.special import chdtrc

from model.evaluate import Interval
from stream.pilots.counts import Counts, StageTotals, add_up
from stream.pilots.difference import Metric, Pair, difference, rate
from stream.pilots.pilot import CONTROL, Pilot

__all__ = ["ArmReport", "PilotReport", "SampleRatio", "report"]

Verdict = Literal["better", "worse", "no difference shown", "too few outcomes"]

State = Literal["running", "stopped by the guardrail", "ended"]

_ALPHA: Final = 0.05
_COMPARISONS: Final = 2  # per variant: its users with control's users, and the two lists for its own users' events
_RATIO_ALPHA: Final = 0.001  # probability of a false alarm, by chance alone


class SampleRatio(NamedTuple):
    """A test whether users were split as declared. If not, the counts of users are biased, and no figure is valid."""

    chi_square: float
    freedom: int
    p: float

    @property
    def fits(self) -> bool:
        return self.p >= _RATIO_ALPHA


class ArmReport(NamedTuple):
    """A variant, or control, which has no comparison."""

    name: str
    lists: str  # its settings
    users: int
    outcomes: int
    rates: Mapping[Metric, float | None]
    differences: Mapping[Metric, Interval | None]  # between its users and control's users
    paired: Mapping[Metric, Interval | None]  # between its lists and control's lists, for the same events
    verdict: Verdict | Literal[""]
    stopped: str  # why the guardrail stopped it

    @property
    def harm(self) -> str:
        """Why the variant must stop; empty while no harm is shown."""
        for told, whose in ((self.differences, "control's users"), (self.paired, "control's lists, same events")):
            found = told.get("hit rate")
            if found is not None and found.high < 0:
                return (
                    f"hit rate {found.mean:+.4f} against {whose}, surely between {found.low:+.4f} and {found.high:+.4f}"
                )
        return ""


class PilotReport(NamedTuple):
    pilot: Pilot
    state: State
    confidence: float  # of each interval; together they hold with 95 %
    ratio: SampleRatio | None
    arms: list[ArmReport]  # control first

    @property
    def variants(self) -> list[ArmReport]:
        return self.arms[1:]

    def as_json(self) -> dict[str, Any]:
        """The report as a value for JSON."""
        pilot, ratio = self.pilot, self.ratio
        return {
            "pilot": pilot.name,
            "state": self.state,
            "ended": pilot.ended,
            "share": pilot.share,
            "stage": pilot.stage,
            "started_ms": pilot.started_ms,
            "changed_ms": pilot.changed_ms,
            "interval_confidence": self.confidence,
            "sample_ratio": None
            if ratio is None
            else {"chi_square": ratio.chi_square, "freedom": ratio.freedom, "p": ratio.p, "fits": ratio.fits},
            "variants": [_arm_json(arm) for arm in self.arms],
        }


def report(pilot: Pilot, records: Iterable[Counts]) -> PilotReport:
    """The report of a pilot, from the newest counts of every scorer."""
    stages = add_up(record for record in records if record.pilot == pilot.name)
    alpha = _ALPHA / len(pilot.variants) / _COMPARISONS
    arms = [_arm(pilot, CONTROL, "as served", stages, alpha)]
    arms += [_arm(pilot, variant.name, str(variant.lists), stages, alpha) for variant in pilot.variants]
    return PilotReport(pilot, _state(pilot), 1 - alpha, _sample_ratio(pilot, stages), arms)


def _state(pilot: Pilot) -> State:
    if pilot.ended:
        return "ended"
    return "running" if pilot.running else "stopped by the guardrail"


def _arm(pilot: Pilot, name: str, lists: str, stages: Mapping[int, StageTotals], alpha: float) -> ArmReport:
    tables = [totals.ranks[name] for totals in stages.values() if name in totals.ranks]
    users, outcomes = sum(totals.users.get(name, 0) for totals in stages.values()), sum(int(t.sum()) for t in tables)
    rates: dict[Metric, float | None] = {metric: rate(tables, metric) for metric in _METRICS}
    stop = pilot.stops.get(name)
    if name == CONTROL:
        return ArmReport(name, lists, users, outcomes, rates, {}, {}, "", "")
    both = [totals.ranks for totals in stages.values() if {name, CONTROL} <= totals.ranks.keys()]
    against: list[Pair] = [(ranks[name], ranks[CONTROL]) for ranks in both]
    twins: list[Pair] = [(t.paired[name], t.twins[name]) for t in stages.values() if name in t.paired]
    shown = pilot.difference
    differences = {m: difference(against, m, alpha=alpha, shown=shown) for m in _METRICS}
    paired = {m: difference(twins, m, alpha=alpha, shown=shown, same=True) for m in _METRICS}
    arm = ArmReport(name, lists, users, outcomes, rates, differences, paired, "", "" if stop is None else stop.reason)
    return arm._replace(verdict=_verdict(arm))


_METRICS: Final[tuple[Metric, ...]] = ("hit rate", "NDCG")


def _verdict(arm: ArmReport) -> Verdict:
    if arm.stopped or arm.harm:
        return "worse"
    found = arm.differences["hit rate"]
    if found is None:
        return "too few outcomes"
    return "better" if found.low > 0 else "no difference shown"


def _sample_ratio(pilot: Pilot, stages: Mapping[int, StageTotals]) -> SampleRatio | None:
    """The test over all stages, each with its own share; None with too few users. A variant that was stopped is left
    out, because its users are no longer counted, unless it is the only one: then control's are not counted either."""
    part = 1 / len(pilot.variants)
    watched = [variant.name for variant in pilot.variants if variant.name not in pilot.stops]
    if len(pilot.variants) == 1:
        watched = [pilot.variants[0].name]
    chi_square, freedom = 0.0, 0
    for stage, totals in stages.items():
        share = pilot.shares.get(stage)
        if share is None:
            continue
        expected = dict.fromkeys(watched, share * part) | {CONTROL: 1 - share}
        expected = {name: weight for name, weight in expected.items() if weight > 0}
        users = {name: totals.users.get(name, 0) for name in expected}
        everybody, whole = sum(users.values()), sum(expected.values())
        if len(expected) < 2 or everybody * min(expected.values()) / whole < 5:  # too few for the distribution
            continue
        for name, weight in expected.items():
            wanted = everybody * weight / whole
            chi_square += (users[name] - wanted) ** 2 / wanted
        freedom += len(expected) - 1
    return SampleRatio(chi_square, freedom, float(chdtrc(freedom, chi_square))) if freedom else None


def _arm_json(arm: ArmReport) -> dict[str, Any]:
    def intervals(found: Mapping[Metric, Interval | None]) -> dict[str, Any]:
        return {
            _key(metric): None
            if interval is None
            else {"mean": interval.mean, "low": interval.low, "high": interval.high}
            for metric, interval in found.items()
        }

    return {
        "variant": arm.name,
        "lists": arm.lists,
        "users": arm.users,
        "outcomes": arm.outcomes,
        **{_key(metric): value for metric, value in arm.rates.items()},
        "against_control": intervals(arm.differences),
        "same_events": intervals(arm.paired),
        "verdict": arm.verdict,
        "stopped": arm.stopped,
    }


def _key(metric: Metric) -> str:
    return metric.replace(" ", "_").lower()
