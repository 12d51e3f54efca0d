"""What the columns of a log contain, judged by their first values."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from stream.sources.log.rows import Columns
from stream.sources.log.times import AMBIGUOUS, NUMBER

__all__ = ["Holds", "survey"]

_KINDS = {
    *("view", "pv", "click", "clicks", "cart", "carts", "addtocart", "add_to_cart", "buy", "purchase", "transaction"),
    *(
        "order",
        "orders",
        "fav",
        "favorite",
        "like",
        "share",
        "play",
        "skip",
        "impression",
        "remove_from_cart",
        "collect",
    ),
}
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?|\d{1,4}(\.0)?")


def survey(columns: Columns, database: duckdb.DuckDBPyConnection) -> list[Holds]:
    """One `Holds` per column. `database` has the macros of `stream.sources.log.times`."""
    return [Holds.of(values, database) for values in columns.values]


@dataclass(frozen=True)
class Holds:
    """What the first values of a column look like."""

    values: tuple[str, ...]
    time: float
    """Share of values that can be read as a time."""
    days: float
    """Share of values that can be read as a date without a time of day."""
    number: float
    """Share of values that can be read as a number."""
    fraction: bool
    """Whether some number has a fraction."""
    small: bool
    """Whether the values are a few small numbers, as ratings and counts are."""
    few: bool
    """Whether there are only a few short values, as for kinds of events."""
    kind: bool
    """Whether the values are a few words, at least one of which is a usual name of a kind of event."""
    id: bool
    """Whether the values may be ids of users or items."""
    listed: bool
    """Whether most values are lists of several values."""
    clock: bool
    """Whether the values are times of day."""

    @property
    def numeric(self) -> bool:
        return self.number > 0.95

    def matches(self, pattern: re.Pattern[str]) -> bool:
        """Whether nearly all values match `pattern`."""
        return bool(self.values) and sum(map(bool, map(pattern.fullmatch, self.values))) > 0.9 * len(self.values)

    @classmethod
    def of(cls, values: tuple[str, ...], database: duckdb.DuckDBPyConnection) -> Holds:
        database.register("sampled", pa.table({"x": pa.array(values, pa.string())}))
        ((time, days),) = database.execute(
            f"""SELECT avg((moment.ms IS NOT NULL OR regexp_full_match(trim(x), '{AMBIGUOUS}'))::INT),
                       avg((moment.form LIKE '%day')::INT)
                FROM (SELECT x, instant(x) AS moment FROM sampled WHERE trim(x) <> '')"""
        ).fetchall()
        database.unregister("sampled")
        distinct = {value.strip() for value in values}
        numbers = [float(value) for value in values if re.fullmatch(rf"\s*({NUMBER})\s*", value)]
        share = len(numbers) / max(len(values), 1)
        few = 0 < len(distinct) <= 25 and all(len(value) <= 64 for value in distinct)
        spaced = sum(" " in value.strip() for value in values) > 0.5 * len(values)
        fraction = any(number % 1 for number in numbers)
        return cls(
            values,
            time=time or 0.0,
            days=days or 0.0,
            number=share,
            fraction=fraction,
            small=share > 0.95 and few and all(-1 <= number <= 100 for number in numbers),
            few=few,
            kind=few and share < 0.05 and bool({value.lower() for value in distinct} & _KINDS),
            id=bool(values) and not fraction and not spaced and all(len(value) <= 512 for value in distinct),
            listed=sum(value.strip().count(" ") > 2 for value in values) > 0.5 * len(values),
            clock=bool(values) and all(map(_CLOCK.fullmatch, distinct)),
        )
