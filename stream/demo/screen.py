"""The display of a running demo."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stream.demo.latency_probe import Observer
from stream.demo.report import DemoReport, hit_rates, milliseconds
from stream.local.terminal import PrefixedLog

__all__ = ["Screen"]


class Screen:
    """Shows `report`, which the demo keeps up to date; call `note` about twice a second."""

    def __init__(self, report: DemoReport) -> None:
        self.report = report
        self.total = 0  # events that the source will send
        self._history: list[tuple[float, float, float]] = []  # (clock, events, lists)

    def note(self) -> None:
        """Store the current counts, from which the rates are computed."""
        self._history.append((time.monotonic(), self.report.accepted, self.report.lists))

    def _rates(self, seconds: float = 5.0) -> tuple[float, float]:
        if len(self._history) < 2:
            return 0.0, 0.0
        now = self._history[-1]
        then = next((h for h in self._history if now[0] - h[0] <= seconds), self._history[0])
        span = max(now[0] - then[0], 1e-9)
        return max(now[1] - then[1], 0) / span, max(now[2] - then[2], 0) / span

    def line(self, observer: Observer) -> str:
        """The state of the demo as one line, for a log."""
        report, (events, lists) = self.report, self._rates()
        recent = observer.quantiles((0.5, 0.99), last=1000)
        model = report.models[-1] if report.models else "popularity"
        return (
            f"{report.sent}/{self.total} events, {events:.0f}/s in, {lists:.0f}/s lists, "
            f"p50 {milliseconds(recent[0])}, p99 {milliseconds(recent[1])}, model {model}, "
            f"hit rate@10 {hit_rates(report)}"
        )

    def view(self, observer: Observer, emit: PrefixedLog) -> RenderableType:
        """The state of the demo for a terminal."""
        report, (events, lists) = self.report, self._rates()
        p50, p90, p99 = map(milliseconds, observer.quantiles((0.5, 0.9, 0.99), last=1000))
        numbers = Table.grid(padding=(0, 3))
        numbers.add_row("events", f"{report.sent:,} of {self.total:,}", f"{events:,.0f}/s in")
        numbers.add_row("lists", f"{report.lists:,}", f"{lists:,.0f}/s out")
        numbers.add_row("event to list", f"p50 {p50}", f"p90 {p90}   p99 {p99}")
        model = report.models[-1] if report.models else "none yet: popularity"
        numbers.add_row("model", model, f"{len(report.models)} taken live")
        numbers.add_row("hit rate@10", hit_rates(report), f"on {report.scored:,} events")
        numbers.add_row("dead letters", f"{report.dead_letters:,}", "")
        users = Table(box=None, show_header=False, padding=(0, 1))
        for user, shown in list(observer.watched.items()):
            before = {scored.item for scored in shown[0].items} if len(shown) > 1 else set()
            line = Text()
            for scored in shown[-1].items[:10]:
                line.append(f"{scored.item} ", style="" if scored.item in before or not before else "bold green")
            users.add_row(user, shown[-1].variant, line)
        recent_lines = list(emit.recent)[-8:]
        return Group(
            Panel(numbers, title="freshet", title_align="left"),
            Panel(users, title="last lists of a few users (new in green)", title_align="left"),
            Panel(Group(*(emit.styled(*line) for line in recent_lines)), title="processes", title_align="left"),
        )
