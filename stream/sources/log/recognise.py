"""Finds the role of each column: as asked, by its name, or by what it holds. If the role of a column is doubtful, the
log is refused with a message that says which options to type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb

from stream.sources.log.holds import Holds, survey
from stream.sources.log.known_names import by_name, plain
from stream.sources.log.options import ROLES, LogError, LogOptions
from stream.sources.log.rows import Columns

__all__ = ["MISSING", "Recognised", "recognise"]

MISSING = ("", "NA", "N/A", "NULL", "null", "None", "nan", "NaN", "\\N", "<NA>", "(null)", "undefined")
"""Texts that mark a missing id."""

How = Literal["as asked", "by its name", "by what it holds"]

_REQUIRED = ("user", "item", "timestamp")
_ASIN = re.compile(r"B[0-9A-Z]{9}|\d{9}[0-9X]")
_AMAZON_USER = re.compile(r"A[0-9A-Z]{9,20}")

# What the columns of files without header hold, and what they are. `id` is anything that may name a user or an item.
_LAYOUTS: tuple[tuple[tuple[str, ...], dict[str, int]], ...] = (
    (("id", "id", "time"), {"user": 0, "item": 1, "timestamp": 2}),
    (("id", "time", "id"), {"user": 0, "timestamp": 1, "item": 2}),
    (("id", "id", "small", "time"), {"user": 0, "item": 1, "rating": 2, "timestamp": 3}),  # MovieLens
    (("id", "id", "time", "small"), {"user": 0, "item": 1, "timestamp": 2, "rating": 3}),
    (("id", "id", "kind", "time"), {"user": 0, "item": 1, "event": 2, "timestamp": 3}),
    (("id", "id", "time", "kind"), {"user": 0, "item": 1, "timestamp": 2, "event": 3}),
    (("id", "time", "id", "small"), {"user": 0, "timestamp": 1, "item": 2}),  # YooChoose, clicks
    (("id", "time", "id", "id", "small"), {"user": 0, "timestamp": 1, "item": 2}),  # YooChoose, buys
    (("id", "id", "id", "kind", "time"), {"user": 0, "item": 1, "event": 3, "timestamp": 4}),  # Taobao UserBehavior
    (("id", "time", "number", "number", "id"), {"user": 0, "timestamp": 1, "item": 4}),  # Gowalla, Brightkite
)


@dataclass(frozen=True)
class Recognised:
    """Positions of the columns by role, and how each was found."""

    positions: Mapping[str, int]
    how: Mapping[str, How]


def recognise(
    name: str,
    columns: Columns,
    options: LogOptions,
    database: duckdb.DuckDBPyConnection,
    place_of: Callable[[int], str],
    any_age: bool = False,
) -> Recognised:
    """The columns of a log by role. `database` has the macros of `stream.sources.log.times`; `place_of` gives the place
    of a row for messages; with `any_age` times may be any numbers. Raises `LogError`."""
    return _Recogniser(name, columns, options, survey(columns, database), place_of, any_age).recognised()


class _Recogniser:
    def __init__(
        self,
        name: str,
        columns: Columns,
        options: LogOptions,
        holds: Sequence[Holds],
        place_of: Callable[[int], str],
        any_age: bool,
    ) -> None:
        self._name, self._columns, self._options, self._holds = name, columns, options, holds
        self._place_of, self._any_age = place_of, any_age
        self._found: dict[str, int] = {}
        self._how: dict[str, How] = {}

    def recognised(self) -> Recognised:
        for role in ROLES:
            asked = getattr(self._options, role)
            if asked is not None:
                self._take(role, self._asked(role, asked), "as asked")
        if self._columns.named:
            self._take_named()
        elif not set(_REQUIRED) & self._found.keys():
            self._take_layout()
        missing = [role for role in _REQUIRED if role not in self._found]
        if missing:
            raise LogError(_question(self._name, self._columns, self._holds, self._found, missing))
        if self._options.min_rating is not None and "rating" not in self._found:
            raise LogError(_question(self._name, self._columns, self._holds, self._found, ["rating"]))
        if self._options.kinds and "event" not in self._found:
            raise LogError(_question(self._name, self._columns, self._holds, self._found, ["event"]))
        return Recognised(self._found, self._how)

    def _take(self, role: str, position: int | None, how: How) -> None:
        if position is not None and role not in self._found:
            self._found[role] = position
            self._how[role] = how

    def _asked(self, role: str, asked: str | int) -> int:
        names = self._columns.names
        if str(asked) in names:
            return names.index(str(asked))
        alike = [position for position, name in enumerate(names) if plain(name) == plain(str(asked)) != ""]
        if len(alike) == 1 and not isinstance(asked, int):
            return alike[0]
        if str(asked).isdecimal() and int(asked) < len(names):
            return int(asked)
        there = ", ".join(map(repr, names)) if self._columns.named else f"0 to {len(names) - 1}"
        raise LogError(f"{self._name}: no column {asked!r} for {role}; there are {there}")

    # -- by name -------------------------------------------------------------------------------------------------------

    def _take_named(self) -> None:
        self._take("timestamp", self._named_time(), "by its name")
        for role in ("user", "item"):
            if role not in self._found:
                self._take(role, self._named_id(role), "by its name")
        if "timestamp" not in self._found:
            in_words = [
                time for time in self._free() if self._holds[time].time > 0.95 and not self._holds[time].numeric
            ]
            self._take("timestamp", in_words[0] if len(in_words) == 1 else None, "by what it holds")
        if "timestamp" in self._found and self._holds[self._found["timestamp"]].days > 0.95:
            clocks = [*by_name("time_of_day", self._columns.names), *by_name("timestamp", self._columns.names)]
            fitting = (place for place in clocks if place in self._free() and self._holds[place].clock)
            self._take("time_of_day", next(fitting, None), "by its name")
        self._take("rating", self._first("rating", lambda holds: holds.number >= 0.5), "by its name")
        self._take("weight", self._first("weight", lambda holds: holds.number >= 0.5), "by its name")
        self._take("event", self._first("event", lambda holds: holds.few), "by its name")

    def _free(self) -> list[int]:
        return [place for place in range(len(self._columns.names)) if place not in self._found.values()]

    def _first(self, role: str, fits: Callable[[Holds], bool]) -> int | None:
        places = [place for place in by_name(role, self._columns.names) if place in self._free()]
        return next((place for place in places if not self._holds[place].values or fits(self._holds[place])), None)

    def _named_time(self) -> int | None:
        if "timestamp" in self._found:
            return None
        places = [place for place in by_name("timestamp", self._columns.names) if place in self._free()]
        fitting = [place for place in places if self._holds[place].time >= 0.5 or not self._holds[place].values]
        if places and not fitting:
            place = places[0]
            if self._any_age and self._holds[place].numeric:
                return place
            value = self._holds[place].values[0]
            where = self._place_of(self._columns.first[place])
            wrong = (
                f"{self._name}, {where}: the column {self._columns.names[place]!r} holds {value!r}, which is no time"
            )
            if self._holds[place].number > 0.5:
                raise LogError(
                    f"{wrong} between 1995 and now. If it counts from a moment of its own, type --time-origin with "
                    "that moment, such as 2020-01-31, and --time-unit; else name another column: --timestamp"
                )
            raise LogError(f"{wrong}. Name its form, such as --time-format '%d/%m/%Y', or another column: --timestamp")
        # A column with values is preferred to one without; next, a time of day counts more than a likelier name.
        return min(fitting, key=lambda at: (not self._holds[at].values, self._holds[at].days > 0.95), default=None)

    def _named_id(self, role: str) -> int | None:
        places = [place for place in by_name(role, self._columns.names) if place in self._free()]
        places = [place for place in places if not self._holds[place].fraction]
        if not places or self._missing(places[0]) <= 0.5:
            return places[0] if places else None
        filled = [place for place in places if self._missing(place) <= 0.5]
        name = self._columns.names[places[0]]
        other = f"--{role} {self._columns.names[filled[0]]} for another column, or " if filled else ""
        raise LogError(
            f"{self._name}: the column {name!r} is empty in {self._missing(places[0]):.0%} of the first rows. Type "
            f"{other}--{role} {name} to leave those rows out"
        )

    def _missing(self, position: int) -> float:
        values = self._holds[position].values
        marked = sum(value.strip() in MISSING for value in values) / max(len(values), 1)
        empty = self._columns.empty[position]
        return empty + (1 - empty) * marked

    # -- by what they hold ---------------------------------------------------------------------------------------------

    def _take_layout(self) -> None:
        times = [place for place, holds in enumerate(self._holds) if holds.time > 0.95]
        if len(times) > 1:  # numbers of this size may be ids as well
            times = [place for place in times if not self._holds[place].numeric] or times
        if len(times) != 1:
            return
        for layout, positions in _LAYOUTS:
            if len(layout) == len(self._holds) and all(
                place == times[0] if token == "time" else place != times[0] and getattr(self._holds[place], token)
                for place, token in enumerate(layout)
            ):
                for role, place in positions.items():
                    self._take(role, place, "by what it holds")
                break
        if {"user", "item"} <= self._found.keys():
            first, second = (self._holds[self._found[role]] for role in ("user", "item"))
            if first.matches(_ASIN) and second.matches(_AMAZON_USER):
                self._found["user"], self._found["item"] = self._found["item"], self._found["user"]


def _question(
    name: str, columns: Columns, holds: Sequence[Holds], found: Mapping[str, int], missing: Sequence[str]
) -> str:
    """A message that says which columns are missing, which there are, and what to type."""
    there = [
        f"{called or place} ({', '.join(value[:24] for value in columns.values[place][:2]) or 'empty'})"
        for place, called in enumerate(columns.names)
    ]
    more = f" and {len(there) - 30} more" if len(there) > 30 else ""
    question = f"{name}: which column is {' and which is '.join(missing)}? There are {', '.join(there[:30])}{more}."
    if "timestamp" in missing and not any(column.time > 0.5 for column in holds):
        per_row = ", one event per row" if any(column.listed for column in holds) else ""
        return (
            f"{question} None of them holds a time, and a log needs the time of each event{per_row}: add it, or name "
            "its column and form, --timestamp and --time-format or --time-origin"
        )
    return f"{question} Type for example {' '.join(_suggestion(columns, holds, found, missing))}"


def _suggestion(
    columns: Columns, holds: Sequence[Holds], found: Mapping[str, int], missing: Sequence[str]
) -> list[str]:
    free = [place for place in range(len(columns.names)) if place not in found.values()]
    likely: dict[str, Callable[[Holds], bool]] = {
        "timestamp": lambda column: column.time > 0.5,
        "rating": lambda column: column.number > 0.5,
        "event": lambda column: column.few,
    }
    places = {} if columns.named else {role: found[role] for role in _REQUIRED if role in found}
    for role in sorted(missing, key=lambda role: role in ("user", "item")):
        fits = likely.get(role, lambda column: column.id and not column.time > 0.5)
        place = next((place for place in free if fits(holds[place])), None)
        if place is not None:
            free.remove(place)
            places[role] = place
    return [
        f"--{role} {columns.names[places[role]] or places[role]}" if role in places else f"--{role} ..."
        for role in ROLES
        if role in places or role in missing
    ]
