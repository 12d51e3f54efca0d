"""The report of a pilot, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model.evaluate import Interval
from stream.pilots.difference import Metric
from stream.pilots.report import ArmReport, PilotReport, SampleRatio

__all__ = ["draw", "print_report"]


def print_report(found: PilotReport, console: Console) -> None:
    pilot = found.pilot
    state = f"ended: {pilot.ended}" if pilot.ended else found.state
    console.print(f"pilot {pilot.name}, {state}; stage {pilot.stage}, {pilot.share:.3g} of the users", highlight=False)
    table = Table("variant", "lists", "users", "outcomes", "hit rate@10", "NDCG@10", "against control", "same events")
    table.add_column("verdict")
    for arm in found.arms:
        table.add_row(
            arm.name,
            arm.lists,
            f"{arm.users:,}",
            f"{arm.outcomes:,}",
            _rate(arm.rates["hit rate"]),
            _rate(arm.rates["NDCG"]),
            _intervals(arm.differences),
            _intervals(arm.paired),
            arm.verdict + (f"\nstopped by the guardrail: {arm.stopped}" if arm.stopped else ""),
        )
    console.print(table)
    console.print(f"Split of the users: {_split(found.ratio)}", highlight=False)
    console.print(
        f"Differences of hit rate and NDCG, each in bounds of {100 * found.confidence:.4g} %, right whenever they are "
        "read. The verdict is by the hit rate.\nSame events: the variant's users, asked of the list that control would "
        "have shown them. It favours what was shown.",
        style="dim",
        highlight=False,
    )


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _intervals(found: Mapping[Metric, Interval | None]) -> str:
    return "\n".join(
        "–" if one is None else f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]" for one in found.values()
    )


def _split(ratio: SampleRatio | None) -> str:
    if ratio is None:
        return "too few users to say"
    figures = f"chi-square {ratio.chi_square:.1f} with {ratio.freedom} degrees of freedom, p {ratio.p:.2g}"
    if ratio.fits:
        return f"as declared ({figures})"
    return f"NOT as declared ({figures}): something decides who is counted, so trust none of these figures"


def draw(found: PilotReport, path: Path) -> None:
    """The bounds of every variant as a PNG. Needs matplotlib."""
    from matplotlib.figure import Figure

    metrics: tuple[Metric, ...] = ("hit rate", "NDCG")
    figure = Figure(figsize=(9, 1.6 + 0.9 * len(found.variants)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2, sharey=True), metrics, strict=True):
        for place, arm in enumerate(found.variants):
            for offset, colour, label, told in _bounds(arm):
                interval = told[metric]
                if interval is not None:
                    reach = [[interval.mean - interval.low], [interval.high - interval.mean]]
                    axes.errorbar(
                        interval.mean, place + offset, xerr=reach, fmt="o", capsize=4, color=colour, label=label
                    )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(xlabel=f"{metric}@10, variant - control", ylim=(-0.6, len(found.variants) - 0.4))
        axes.set_yticks(range(len(found.variants)), [f"{arm.name}: {arm.verdict}" for arm in found.variants])
        axes.spines[["top", "right"]].set_visible(False)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        if handles:
            axes.legend(handles.values(), handles.keys(), fontsize=8)
    split = "split as declared" if found.ratio is None or found.ratio.fits else "SPLIT NOT AS DECLARED"
    figure.suptitle(f"pilot {found.pilot.name}, {found.state}, share {found.pilot.share:.3g}; {split}", fontsize=10)
    figure.savefig(path, dpi=150, format="png")


def _bounds(arm: ArmReport) -> tuple[tuple[float, str, str, Mapping[Metric, Interval | None]], ...]:
    return (0.12, "C0", "against control", arm.differences), (-0.12, "C1", "same events", arm.paired)
