"""A summary of what was read from a log, for the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from stream.wire.records import Interaction

__all__ = ["Account", "TakenColumn"]


@dataclass(frozen=True)
class TakenColumn:
    """A column, its role, how it was found, and its first values."""

    role: str
    name: str
    how: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Account:
    """Every row of the file is counted once: as an event, malformed, below the minimum, or of another kind."""

    name: str
    words: str
    columns: tuple[TakenColumn, ...]
    unused: tuple[str, ...]
    named: bool
    line_breaks: bool
    forms: Mapping[str, int]
    zone: str
    rows: int
    malformed: int
    below_minimum: int
    other_kinds: int
    examples: tuple[str, ...]
    events: int
    users: int
    items: int
    first_ms: int
    last_ms: int
    ratings: tuple[float, float] | None
    min_rating: float | None
    kinds: Mapping[str, int]
    first_rows: tuple[Interaction, ...]

    @property
    def read_alike_before(self) -> bool:
        """Whether the previous release read the same events from the file, in the same order: it did if no row is
        malformed or takes several lines, there is no column of weights, and all times are numbers of one form."""
        numbers = len(self.forms) == 1 and all("since 1970" in form or "unit" in form for form in self.forms)
        return numbers and not (
            self.malformed or self.line_breaks or any(column.role == "weight" for column in self.columns)
        )

    def lines(self) -> list[str]:
        """The summary as lines for a terminal."""
        shown = [f"{self.name}: {self.words}"]
        for column in self.columns:
            called = column.name if self.named else f"column {column.name}"
            values = ", ".join(value.strip()[:32] for value in column.values) or "empty in the first rows"
            shown.append(f"  {column.role.replace('_', ' '):<12}{called:<20} {column.how:<17} {values}")
        if self.named and self.unused:
            shown.append(f"  {'not used':<12}{', '.join(self.unused[:12])}{', ...' if len(self.unused) > 12 else ''}")
        shown.append(f"  {'times':<12}{self._times()}")
        if self.ratings is not None:
            lowest, highest = self.ratings
            least = "all are taken; --min-rating leaves out low ones"
            if self.min_rating is not None:
                least = f"{self.min_rating:g} and more are taken"
            shown.append(f"  {'ratings':<12}{lowest:g} to {highest:g}; {least}")
        if self.kinds:
            kinds = [f"{count:,} {kind or 'without a kind'}" for kind, count in list(self.kinds.items())[:8]]
            shown.append(f"  {'kinds':<12}{', '.join(kinds)}{', ...' if len(self.kinds) > 8 else ''}")
        shown.append("  first rows")
        for event in self.first_rows:
            more = (f", weight {event.weight:g}" if event.weight != 1 else "") + (
                f", {event.event}" if event.event else ""
            )
            shown.append(f"    user {event.user}, item {event.item}, {_moment(event.timestamp)}{more}")
        broken = " of several lines" if self.line_breaks else ""
        shown.append(
            f"{_some(self.events, 'event')} of {_some(self.users, 'user')} and {_some(self.items, 'item')} in "
            f"{_some(self.rows, 'row')}{broken}, "
            f"{_moment(self.first_ms)} to {_moment(self.last_ms)}"
        )
        return shown + self.left_out()

    def left_out(self) -> list[str]:
        """Lines about the rows that are not events; empty if every row is an event."""
        shown = []
        if self.min_rating is not None and self.below_minimum:
            shown.append(f"  {self.below_minimum:,} rated below {self.min_rating:g}")
        if self.other_kinds:
            shown.append(f"  {self.other_kinds:,} of other kinds")
        if self.malformed:
            shown.append(f"  {self.malformed:,} malformed and left out, for example:")
            shown += [f"    {example}" for example in self.examples]
        return shown

    def why_empty(self, kinds: Collection[str]) -> str:
        """One line that says why a log has no usable event."""
        if not self.rows:
            return f"{self.name} holds no row"
        if self.other_kinds:
            return f"{self.name} holds no event of kind {', '.join(kinds)} in {_some(self.rows, 'row')}"
        if self.below_minimum:
            highest = "" if self.ratings is None else f"; the highest is {self.ratings[1]:g}"
            rated = _some(self.below_minimum, "event")
            return f"{self.name}: none of {rated} is rated {self.min_rating:g} or more{highest}"
        return f"{self.name}: none of {_some(self.rows, 'row')} can be used; the first: {self.examples[0]}"

    def _times(self) -> str:
        forms = list(self.forms.items())
        shown = forms[0][0] if len(forms) == 1 else ", ".join(f"{count:,} {form}" for form, count in forms)
        if any("since" not in form for form, _ in forms):
            shown += f"; those without a zone are taken as {self.zone}" + (
                "" if self.zone != "UTC" else " (--time-zone)"
            )
        return shown


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _some(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
