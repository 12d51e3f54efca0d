"""The result of a demo: the figures, the reasons why it failed, and the summary for the user."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["EXPECTED_MODELS", "DemoReport", "hit_rates", "milliseconds", "print_report"]

EXPECTED_MODELS = 2  # the least number of versions that go live in a demo


@dataclass
class DemoReport:
    """The figures of a demo, for the summary and for the exit code."""

    sent: int = 0
    elsewhere: int = 0  # records that other producers wrote to the same topic
    accepted: int = 0
    dead_letters: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # dead letters by reason
    lists: int = 0
    unanswered: int = 0
    p50: float = math.nan
    p99: float = math.nan
    models: list[str] = field(default_factory=list)
    scored: int = 0  # events that were compared with a model's list
    model_hits: int = 0
    popularity_hits: int = 0
    users: int = 0
    differences: list[str] = field(default_factory=list)
    restarts: int = 0
    clean: bool = False

    @property
    def sent_in_words(self) -> str:
        return f"{self.sent:,} sent" + (f" + {self.elsewhere:,} from elsewhere" if self.elsewhere else "")

    def problems(self) -> list[str]:
        """The reasons why the demo failed; empty when it succeeded."""
        found = []
        if self.accepted + self.dead_letters != self.sent + self.elsewhere:
            found.append(f"{self.sent_in_words}, but {self.accepted:,} accepted + {self.dead_letters:,} dead letters")
        if not self.lists:
            found.append("no list was published")
        if len(self.models) < EXPECTED_MODELS:
            found.append(f"{len(self.models)} model versions were taken live, at least {EXPECTED_MODELS} were expected")
        if not self.scored:
            found.append("no event could be compared with a model's list")
        if self.differences:
            found.append(f"{len(self.differences)} histories differ from the reference merge: {self.differences[0]}")
        if not self.clean:
            found.append("a process had to be killed at the end")
        return found


def milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1000 * seconds:.0f} ms"


def hit_rates(report: DemoReport) -> str:
    if not report.scored:
        return "not yet"
    model, popular = report.model_hits / report.scored, report.popularity_hits / report.scored
    return f"model {model:.3f}, popularity {popular:.3f}"


def print_report(report: DemoReport, write: Callable[[str], None]) -> None:
    """Write the summary at the end."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.rejected.items()))
    rows = [
        ("events in", f"{report.sent_in_words} = {report.accepted:,} accepted + {report.dead_letters:,} dead letters"),
        ("dead letters", reasons or "none"),
        ("lists out", f"{report.lists:,}"),
        ("event to list", f"p50 {milliseconds(report.p50)}, p99 {milliseconds(report.p99)}"),
        ("models taken live", f"{len(report.models)}: {', '.join(report.models)}"),
        ("hit rate@10", f"{hit_rates(report)} (the same {report.scored:,} events)"),
        ("histories", f"{report.users:,} users, {len(report.differences)} differ from the reference merge"),
    ]
    if report.restarts:
        rows.append(("restarts", str(report.restarts)))
    write("")
    for name, value in rows:
        write(f"{name:>18}  {value}")
    for problem in report.problems():
        write(f"{'FAILED':>18}  {problem}")
