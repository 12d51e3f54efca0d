"""Times as people write them, read by DuckDB: macros that turn a text into milliseconds since 1970 UTC.

    instant(text)   struct(ms, form): any form below except dates such as 01/02/2020; ms is null for any other text
    moment(text)    the same; but if the rules allow times of any age, numbers of any size count from 1970
    day_first(text), month_first(text)   ms of dates such as 01/02/2020, once it is known which part is the day

Numbers need no unit. Between 1995 and now, the ranges of seconds, milliseconds, microseconds and nanoseconds since 1970
do not overlap, nor do they with calendar dates written as numbers: 20220408 as seconds would be a day of 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from stream.sources.log.options import LogError, LogOptions, TimeUnit

__all__ = ["AMBIGUOUS", "FORM_WORDS", "NUMBER", "TimeRules", "define_times", "unit_named"]

NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
AMBIGUOUS = r"\d{1,2}[/-]\d{1,2}[/-]\d{4}\b.*"
"""Dates whose first two parts may be day and month or month and day."""

_MS: dict[TimeUnit, float] = {
    "ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "min": 60e3, "h": 3600e3, "d": 86400e3,
}  # fmt: skip
FORM_WORDS = {
    "ns": "nanoseconds since 1970",
    "us": "microseconds since 1970",
    "ms": "milliseconds since 1970",
    "s": "seconds since 1970",
    "iso": "ISO 8601 times",
    "iso day": "ISO 8601 dates",
    "calendar": "times such as 20220408T101500",
    "calendar day": "dates such as 20220408",
    "words": "times in words",
    "dotted": "day.month.year",
    "day first": "day/month/year",
    "month first": "month/day/year",
    "format": "times of the given format",
    "counted": "counted from the given origin",
    "unit": "numbers of the given unit",
}

_PLAIN_ISO = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}(:\d{2})?)?"  # a cast reads this form
_ISO = (
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}"
    r"([T ]\d{1,2}(:\d{2}(:\d{2}([.,]\d{1,9})?)?)?( ?(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?)?"
)
_ZONED = ("%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z", "%d %b %Y %H:%M:%S %z", "%d/%b/%Y:%H:%M:%S %z")
_DAYS = ("%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%m %d, %Y", "%a %d %b %Y", "%a, %d %b %Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", " %H")
_UNZONED = (
    "%a %b %d %H:%M:%S %Y",
    "%d/%b/%Y:%H:%M:%S",
    *(day + clock for day in _DAYS for clock in _CLOCKS),
)


@dataclass(frozen=True)
class TimeRules:
    """How times are read, by the options, and between which times they must be."""

    zone: str
    earliest_ms: int
    latest_ms: int
    any_age: bool = False
    unit: TimeUnit | None = None
    format: str | None = None
    origin: str | None = None

    @classmethod
    def of(cls, options: LogOptions, earliest_ms: int, latest_ms: int, any_age: bool = False) -> TimeRules:
        form = options.time_unit, options.time_format, options.time_origin
        return cls(options.time_zone, earliest_ms, latest_ms, any_age, *form)


def unit_named(name: str) -> TimeUnit | None:
    """The unit that a column's name ends with.

    >>> unit_named("time_ms"), unit_named("unixSeconds"), unit_named("items")
    ('ms', 's', None)
    """
    plain = name.lower().replace("-", "_")
    endings: dict[TimeUnit, tuple[str, ...]] = {
        "ms": ("_ms", "timems", "tsms", "timestampms", "millis", "milliseconds", "msec"),
        "us": ("_us", "timeus", "micros", "microseconds", "usec"),
        "ns": ("_ns", "timens", "nanos", "nanoseconds"),
        "s": ("_s", "_sec", "seconds", "_secs"),
    }
    # The longest ending is taken: milliseconds also ends with seconds.
    found = [(len(ending), unit) for unit, all_of in endings.items() for ending in all_of if plain.endswith(ending)]
    return max(found)[1] if found else None


def define_times(database: duckdb.DuckDBPyConnection, rules: TimeRules) -> None:
    """Define the macros. Raises `LogError` for an origin that is not a time and for an invalid format."""
    zone = _quoted(rules.zone)
    low, high = rules.earliest_ms, rules.latest_ms
    database.execute(f"SET TimeZone = {zone}")
    database.execute(
        f"""
        CREATE MACRO local_ms(moment) AS epoch_ms(timezone({zone}, moment));
        CREATE MACRO plausible(ms) AS ms BETWEEN {low} AND {high};
        CREATE MACRO iso_clean(x) AS
            regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(x,
                '^(\\d{{4}})[/.](\\d{{1,2}})[/.]', '\\1-\\2-'),
                ',', '.'),
                ' ?(UTC|GMT|Z)$', '+00:00'),
                ' ([+-])(\\d{{2}})', '\\1\\2'),
                '([T ]\\d{{1,2}}.*[+-]\\d{{2}})(\\d{{2}})$', '\\1:\\2'),
                '([T ])(\\d{{1,2}})($|[+-])', '\\1\\2:00\\3');
        CREATE MACRO iso_ms(x) AS epoch_ms(try_cast(x AS TIMESTAMPTZ));
        CREATE MACRO calendar_ms(x) AS local_ms(CASE length(x)
            WHEN 8 THEN try_strptime(x, '%Y%m%d') WHEN 10 THEN try_strptime(x, '%Y%m%d%H')
            WHEN 12 THEN try_strptime(x, '%Y%m%d%H%M') WHEN 14 THEN try_strptime(x, '%Y%m%d%H%M%S') END);
        CREATE MACRO words_ms(x) AS coalesce(
            epoch_ms(try_strptime(regexp_replace(x, ' ?(GMT|UTC)( |$)', ' +0000\\2'), {_list(_ZONED)})),
            epoch_ms(try_strptime(regexp_replace(x, ' (GMT|UTC|Z)$', ''), {_list(_UNZONED)}) AT TIME ZONE
                CASE WHEN regexp_matches(x, ' (GMT|UTC|Z)$') THEN 'UTC' ELSE {zone} END));
        CREATE MACRO dotted_ms(x) AS local_ms(try_strptime(x, {_list(_numeric("%d.%m.%Y"))}));
        CREATE MACRO slashes(x) AS
            replace(regexp_replace(x, '^(\\d{{1,2}})-(\\d{{1,2}})-', '\\1/\\2/'), ', ', ' ');
        CREATE MACRO day_first(x) AS local_ms(try_strptime(slashes(x), {_list(_numeric("%d/%m/%Y"))}));
        CREATE MACRO month_first(x) AS local_ms(try_strptime(slashes(x), {_list(_numeric("%m/%d/%Y"))}));
        CREATE MACRO as_form(milliseconds, name) AS
            struct_pack(ms := try_cast(milliseconds AS BIGINT), form := name);
        CREATE MACRO sized(n, x) AS CASE
            WHEN plausible(round(n * 1e3)) THEN as_form(round(n * 1e3), 's')
            WHEN plausible(n) THEN as_form(round(n), 'ms')
            WHEN plausible(n / 1e3) THEN as_form(round(n / 1e3), 'us')
            WHEN plausible(n / 1e6) THEN as_form(round(n / 1e6), 'ns')
            WHEN plausible(calendar_ms(x)) THEN
                as_form(calendar_ms(x), CASE length(x) WHEN 8 THEN 'calendar day' ELSE 'calendar' END)
            ELSE as_form(NULL, NULL) END;
        CREATE MACRO aged(n) AS CASE WHEN n IS NULL THEN as_form(NULL, NULL)
            WHEN abs(n) < 1e11 THEN as_form(round(n * 1e3), 's') WHEN abs(n) < 1e14 THEN as_form(round(n), 'ms')
            WHEN abs(n) < 1e17 THEN as_form(round(n / 1e3), 'us') ELSE as_form(round(n / 1e6), 'ns') END;
        """
    )
    database.execute(f"CREATE MACRO instant(text) AS {_reading(database, rules)}")
    moment = "instant(text)"
    if rules.any_age and (rules.unit, rules.format, rules.origin) == (None, None, None):
        number = f"CASE WHEN regexp_full_match(trim(text), '{NUMBER}') THEN CAST(trim(text) AS DOUBLE) END"
        moment = f"CASE WHEN instant(text).ms IS NULL THEN aged({number}) ELSE instant(text) END"
    database.execute(f"CREATE MACRO moment(text) AS {moment}")


def _reading(database: duckdb.DuckDBPyConnection, rules: TimeRules) -> str:
    """The SQL body of the macro `instant`. Raises `LogError`."""
    if rules.format is not None:
        try:
            ((kind, shown),) = database.execute(
                "SELECT typeof(try_strptime('', ?)), strftime(TIMESTAMP '2001-02-03', ?)", [rules.format, rules.format]
            ).fetchall()
        except duckdb.Error as error:
            raise LogError(f"--time-format {rules.format!r}: {str(error).splitlines()[0]}") from None
        if shown == rules.format:
            raise LogError(f"--time-format {rules.format!r} names no part of a time; for example %d/%m/%Y %H:%M")
        parsed = f"try_strptime(trim(text), {_quoted(rules.format)})"
        return f"as_form({'epoch_ms' if 'ZONE' in kind else 'local_ms'}({parsed}), 'format')"
    number = f"regexp_full_match(trim(text), '{NUMBER}')"
    if rules.origin is not None:
        ((origin_ms,),) = database.execute("SELECT iso_ms(iso_clean(trim(?)))", [rules.origin]).fetchall()
        if origin_ms is None:
            raise LogError(f"--time-origin {rules.origin!r} is no date or time; for example 2020-01-31")
        counted = f"{origin_ms} + round(CAST(trim(text) AS DOUBLE) * {_MS[rules.unit or 's']})"
        return f"CASE WHEN {number} THEN as_form({counted}, 'counted') ELSE as_form(NULL, NULL) END"
    if rules.unit is None:
        numbers = "sized(CAST(trim(text) AS DOUBLE), regexp_replace(trim(text), '\\.0+$', ''))"
    else:
        numbers = f"as_form(round(CAST(trim(text) AS DOUBLE) * {_MS[rules.unit]}), 'unit')"
    return f"""CASE
        WHEN {number} THEN {numbers}
        WHEN regexp_full_match(text, '{_PLAIN_ISO}') THEN as_form(iso_ms(text), 'iso')
        WHEN regexp_full_match(trim(text), '{_ISO}') THEN as_form(
            iso_ms(iso_clean(trim(text))), CASE WHEN length(trim(text)) < 11 THEN 'iso day' ELSE 'iso' END)
        WHEN regexp_full_match(trim(text), '\\d{{8}}[T ]?\\d{{4,6}}Z?') THEN as_form(
            CASE WHEN ends_with(trim(text), 'Z') THEN epoch_ms(try_strptime(
                regexp_replace(trim(text), '[TZ ]', '', 'g'), ['%Y%m%d%H%M%S', '%Y%m%d%H%M']))
            ELSE calendar_ms(regexp_replace(trim(text), '[T ]', '')) END, 'calendar')
        WHEN regexp_full_match(trim(text), '/Date\\((\\d+)([+-]\\d{{4}})?\\)/') THEN
            as_form(CAST(regexp_extract(text, '\\d+') AS BIGINT), 'ms')
        WHEN regexp_matches(trim(text), '^\\d{{1,2}}\\.\\d{{1,2}}\\.\\d{{4}}') THEN
            as_form(dotted_ms(trim(text)), 'dotted')
        WHEN regexp_full_match(trim(text), '{AMBIGUOUS}') THEN as_form(NULL, NULL)
        WHEN length(text) < 64 THEN as_form(words_ms(trim(text)), 'words')
        ELSE as_form(NULL, NULL) END"""


def _numeric(day: str) -> tuple[str, ...]:
    return tuple(day + clock for clock in _CLOCKS)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(formats: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(_quoted, formats)) + "]"
