"""The rows of a log in a temporary DuckDB on disk: they are parsed, checked, and read back in time order.

DuckDB sorts within a memory limit and writes the rest to the same folder, so a log may be larger than the memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from stream.sources.log.options import LogError, LogOptions
from stream.sources.log.recognise import MISSING
from stream.sources.log.rows import EXAMPLES
from stream.sources.log.times import AMBIGUOUS, NUMBER, TimeRules, define_times

__all__ = ["Counts", "EventTable"]

_MEMORY = "512MB"
_LONGEST_ID, _LONGEST_KIND = 512, 64  # in letters; the updater accepts no longer ones
_READ_ROWS = 10_000
_ROLES = ("user", "item", "timestamp", "time_of_day", "rating", "weight", "event")


@dataclass(frozen=True)
class Counts:
    """The numbers of rows by result; every row is in exactly one of the first four counts."""

    events: int
    malformed: int
    below_minimum: int
    other_kinds: int
    users: int
    items: int
    first_ms: int
    last_ms: int


class EventTable:
    """Call `load` for each file, then `judge` once; afterwards the table can be read. `close` removes it from the
    disk."""

    def __init__(self, rules: TimeRules) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="freshet-log-")
        self.folder = Path(self._folder.name)
        spilled = {"memory_limit": _MEMORY, "temp_directory": str(self.folder / "spilled")}
        offline = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        threads = {"threads": str(min(os.cpu_count() or 1, 4))}
        self.database = duckdb.connect(str(self.folder / "events"), config={**spilled, **offline, **threads})
        # The slower compression methods cost more time than their smaller files are worth.
        self.database.execute("SET disabled_compression_methods = 'fsst,dict_fsst,zstd,alp,alprd,chimp,patas,roaring'")
        define_times(self.database, rules)
        self._rules = rules
        self._places = 0
        self.database.execute(
            """CREATE TABLE events (place BIGINT, row BIGINT, user VARCHAR, item VARCHAR, ms BIGINT, form VARCHAR,
                                    time VARCHAR, rating DOUBLE, weight DOUBLE, event VARCHAR, fault VARCHAR)"""
        )

    def close(self) -> None:
        self.database.close()
        self._folder.cleanup()

    def load(self, roles: Sequence[str], batches: Iterator[pa.RecordBatch], hours: bool) -> None:
        """Add rows whose columns hold `roles`. `hours` says that times of day such as 9 and 15 are hours; otherwise
        930 and 1530 are hours and minutes."""
        names = ["place", "row", *roles, "fault"]
        kinds = [pa.int64(), pa.int64(), *[pa.string()] * len(roles), pa.string()]
        schema = pa.schema(list(zip(names, kinds, strict=True)))
        feed = _Feed(batches, schema, self._places)
        reader = pa.RecordBatchReader.from_batches(schema, feed)
        absent = ", ".join(f"NULL::VARCHAR AS {role}" for role in _ROLES if role not in roles) or "NULL AS nothing"
        self.database.register("incoming", reader)
        try:
            self.database.execute(
                f"INSERT INTO events {_PARSED.format(absent=absent, text=_time_text('time_of_day' in roles, hours))}"
            )
        except duckdb.Error as error:
            if feed.error is not None:
                raise feed.error from None
            raise _on_disk(error, self.folder) from error
        finally:
            self.database.unregister("incoming")
        self._places = feed.place

    def judge(self, name: str, options: LogOptions, least_rating: float | None) -> None:
        """Decide what depends on a whole column, such as the order of day and month, and which rows are usable. Raises
        `LogError`."""
        order = self._day_order(name)
        form = "form" if order is None else f"coalesce(form, '{order.replace('_', ' ')}')"
        late = "ms" if order is None else f"CASE WHEN ms IS NULL AND {_AMBIGUOUS} THEN {order}(time) ELSE ms END"
        rated = "true" if least_rating is None else f"coalesce(rating >= {least_rating!r}, false)"
        chosen = ", ".join("'" + kind.replace("'", "''") + "'" for kind in options.kinds)
        outside = f"NOT BETWEEN {self._rules.earliest_ms} AND {self._rules.latest_ms}"
        outside = "NOT BETWEEN -9007199254740992 AND 9007199254740992" if self._rules.any_age else outside
        self.database.execute(
            f"""
            CREATE VIEW judged AS
            SELECT place, row, {self._id("user")} AS user, {self._id("item")} AS item, moment AS ms, {form} AS form,
                   rating,                   coalesce(weight, 1.0) AS weight, coalesce(event, '') AS event,
                   coalesce(fault,
                       CASE WHEN moment IS NULL THEN 'no time' || coalesce(': ' || time, '')
                            WHEN moment {outside}
                            THEN 'not between 1995 and now: ' ||
                                coalesce(strftime(make_timestamp(moment * 1000), '%c'), time, '')
                            {"WHEN rating IS NULL THEN 'no rating'" if least_rating is not None else ""} END) AS fault,
                   {rated} AS rated, {f"coalesce(event, '') IN ({chosen})" if chosen else "true"} AS chosen
            FROM (SELECT *, {late} AS moment FROM events);
            CREATE VIEW usable AS SELECT * FROM judged WHERE fault IS NULL AND rated AND chosen;
            """
        )

    def _day_order(self, name: str) -> str | None:
        """`day_first` or `month_first` for dates such as 01/02/2020; None if there are none."""
        first, second = (f"CAST(regexp_extract(time, '^(\\d+)[/-](\\d+)', {part}) AS INT)" for part in (1, 2))
        ((count, days_first, months_first, example),) = self.database.execute(
            f"""SELECT count(*), count(*) FILTER ({first} > 12), count(*) FILTER ({second} > 12), min(time)
                FROM events WHERE ms IS NULL AND {_AMBIGUOUS}"""
        ).fetchall()
        if not count:
            return None
        if bool(days_first) == bool(months_first):
            raise LogError(
                f"{name}: dates such as {example} may be day/month/year or month/day/year"
                f"{', and both are there' if days_first else ''}; type --time-format '%d/%m/%Y' or '%m/%d/%Y', with "
                "what follows, such as ' %H:%M'"
            )
        return "day_first" if days_first else "month_first"

    def _id(self, role: str) -> str:
        """SQL of an id: without the .0 if all ids of the column have it, because a program wrote them as floats; and
        without the space after the delimiter if all have that."""
        ((fractions, spaced),) = self.database.execute(
            f"SELECT bool_and(regexp_full_match({role}, ' ?\\d+\\.0')), bool_and(starts_with({role}, ' ')) FROM events"
        ).fetchall()
        text = f"ltrim({role})" if spaced else role
        return f"regexp_replace({text}, '\\.0$', '')" if fractions else text

    # -- reading -------------------------------------------------------------------------------------------------

    def counts(self) -> Counts:
        ((events, malformed, below, others, first, last),) = self.database.execute(
            """SELECT count(*) FILTER (fault IS NULL AND rated AND chosen), count(fault),
                      count(*) FILTER (fault IS NULL AND NOT rated),
                      count(*) FILTER (fault IS NULL AND rated AND NOT chosen),
                      coalesce(min(ms) FILTER (fault IS NULL AND rated AND chosen), 0),
                      coalesce(max(ms) FILTER (fault IS NULL AND rated AND chosen), 0) FROM judged"""
        ).fetchall()
        users, items = (
            self.database.execute(f"SELECT count(*) FROM (SELECT DISTINCT {role} FROM usable)").fetchall()[0][0]
            for role in ("user", "item")
        )
        return Counts(events, malformed, below, others, users, items, first, last)

    def faults(self) -> list[tuple[int, str]]:
        """(row, why) of the first malformed rows."""
        return self.database.execute(
            f"SELECT row, fault FROM judged WHERE fault IS NOT NULL ORDER BY place LIMIT {EXAMPLES}"
        ).fetchall()

    def kinds(self, among: Sequence[str]) -> set[str]:
        """Those of these kinds that some event has."""
        found = self.database.execute("SELECT DISTINCT event FROM judged WHERE list_contains(?, event)", [list(among)])
        return {kind for (kind,) in found.fetchall()}

    def tally(self, column: str, table: str = "judged") -> Mapping[str, int]:
        """How often each value of `form` or `event` occurs: the 20 most frequent ones, the most frequent first."""
        return dict(
            self.database.execute(
                f"""SELECT {column}, count(*) FROM {table} WHERE ms IS NOT NULL AND {column} IS NOT NULL
                    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"""
            ).fetchall()
        )

    def ratings(self) -> tuple[float, float] | None:
        """(lowest, highest), or None without ratings."""
        ((lowest, highest),) = self.database.execute("SELECT min(rating), max(rating) FROM events").fetchall()
        return None if lowest is None else (lowest, highest)

    def first_rows(self, count: int) -> pa.Table:
        return self.database.sql(f"SELECT * FROM usable ORDER BY place LIMIT {count}").to_arrow_table()

    def in_time_order(self, start: int, columns: str, below_minimum: bool = False) -> Iterator[pa.RecordBatch]:
        """The events from position `start` on; those of one millisecond keep the order of the file."""
        rows = "judged WHERE fault IS NULL AND chosen" if below_minimum else "usable"
        cursor = self.database.cursor()
        try:
            found = cursor.sql(f"SELECT {columns} FROM {rows} ORDER BY ms, place OFFSET {int(start)}")
            yield from found.to_arrow_reader(_READ_ROWS)
        except duckdb.Error as error:
            raise _on_disk(error, self.folder) from error
        finally:
            cursor.close()


class _Feed:
    """Batches with a first column of places. `error` is the error that ended them: DuckDB raises its own instead."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema, place: int) -> None:
        self._batches, self._schema, self.place = batches, schema, place
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for found in self._batches:
                places = pa.array(np.arange(self.place, self.place + len(found)))
                self.place += len(found)
                yield pa.RecordBatch.from_arrays([places, *found.columns], schema=self._schema)
        except Exception as error:
            self.error = error
            raise


def _on_disk(error: duckdb.Error, folder: Path) -> LogError:
    line = str(error).splitlines()[0]
    return LogError(f"the log cannot be sorted in {folder.parent}: {line}. TMPDIR names another folder for it")


def _time_text(with_clock: bool, hours: bool) -> str:
    """SQL of the text that is read as a time."""
    if not with_clock:
        return "timestamp"
    clock = "regexp_replace(trim(time_of_day), '\\.0$', '')"
    plain = f"lpad({clock}, 2, '0') || ':00'" if hours else (
        f"left(lpad({clock}, 4, '0'), 2) || ':' || right(lpad({clock}, 4, '0'), 2)"
    )  # fmt: skip
    day = "regexp_replace(trim(timestamp), '^(\\d{4})(\\d{2})(\\d{2})(\\.0)?$', '\\1-\\2-\\3')"
    return f"{day} || ' ' || CASE WHEN contains({clock}, ':') THEN {clock} ELSE {plain} END"


_MISSING = "(" + ", ".join(f"'{word}'" for word in MISSING) + ")"
_AMBIGUOUS = f"regexp_full_match(trim(time), '{AMBIGUOUS}')"
_LARGEST = 3.4028235e38  # the largest 32-bit float; histories store weights as such


def _number(role: str) -> str:
    return f"CASE WHEN regexp_full_match(trim({role}), '{NUMBER}') THEN CAST(trim({role}) AS DOUBLE) END"


# `load` fills in {{absent}} and {{text}}.
_PARSED = f"""
    SELECT place, row, user, item, moment.ms, moment.form,
           CASE WHEN moment.ms IS NULL AND NOT trim(text) = '' THEN left(trim(text), 80) END,
           {_number("rating")}, amount, kind,
           CASE WHEN fault IS NOT NULL THEN fault
                WHEN user IS NULL THEN 'no user'
                WHEN item IS NULL THEN 'no item'
                WHEN length(user) > {_LONGEST_ID} THEN 'the user is longer than {_LONGEST_ID} letters'
                WHEN length(item) > {_LONGEST_ID} THEN 'the item is longer than {_LONGEST_ID} letters'
                WHEN weight IS NOT NULL AND amount IS NULL THEN 'the weight is no number: ' || left(weight, 80)
                WHEN amount < 0 THEN 'the weight is negative: ' || weight
                WHEN amount > {_LARGEST} THEN 'the weight is too large: ' || weight
                WHEN length(kind) > {_LONGEST_KIND} THEN 'the kind has over {_LONGEST_KIND} letters: ' || left(kind, 80)
           END
    FROM (SELECT place, row, fault, rating,
                 CASE WHEN trim(user) NOT IN {_MISSING} THEN user END AS user,
                 CASE WHEN trim(item) NOT IN {_MISSING} THEN item END AS item,
                 {{text}} AS text, moment({{text}}) AS moment,
                 nullif(trim(weight), '') AS weight, {_number("weight")} AS amount,
                 CASE WHEN trim(event) NOT IN {_MISSING} THEN trim(event) END AS kind
          FROM (SELECT *, {{absent}} FROM incoming))
"""
