"""What a user can say about a log file. Everything else is recognised from the file."""

from __future__ import annotations

import codecs
import math
from dataclasses import dataclass
from typing import Literal, get_args
from zoneinfo import ZoneInfo

__all__ = ["ROLES", "LogError", "LogOptions", "Quote", "TimeUnit"]

TimeUnit = Literal["ns", "us", "ms", "s", "min", "h", "d"]
Quote = Literal["double", "single", "none"]

ROLES = ("user", "item", "timestamp", "time_of_day", "rating", "weight", "event")
"""The roles of columns; each is also the name of the option that chooses the column."""


class LogError(ValueError):
    """The file as a whole cannot be read as an interaction log; the message says which option would help."""


@dataclass(frozen=True)
class LogOptions:
    """How a log is read. What is None is recognised from the file; a log that leaves a doubt is refused."""

    user: str | int | None = None
    """Column of the user, by name or by position from 0."""
    item: str | int | None = None
    """Column of the item."""
    timestamp: str | int | None = None
    """Column of the time or the date."""
    time_of_day: str | int | None = None
    """Column of the hour or the time of day, where the column of the time holds dates."""
    rating: str | int | None = None
    """Column of the rating, which is only compared with the least rating."""
    weight: str | int | None = None
    """Column of the strength; only a column called weight is taken by itself."""
    event: str | int | None = None
    """Column of the kind of event: view, buy, ..."""
    min_rating: float | None = None
    """Least rating: events rated below it are left out."""
    kinds: tuple[str, ...] = ()
    """Only events of these kinds; all of them if none is named."""
    time_unit: TimeUnit | None = None
    """Unit of times that are numbers; judged by their size if not given."""
    time_format: str | None = None
    """Form of the times as strptime names it, such as "%d/%m/%Y %H:%M"."""
    time_zone: str = "UTC"
    """Zone of times that name none, such as Europe/Berlin."""
    time_origin: str | None = None
    """Date or time that the times count from, for logs that count from a moment of their own."""
    delimiter: str | None = None
    """What stands between columns; \\t or tab is a tabulator."""
    header: bool | None = None
    """Whether the first line names the columns."""
    quote: Quote | None = None
    """Quotes around values that hold a delimiter or a line break."""
    encoding: str | None = None
    """Encoding of a text file, such as latin-1; UTF-8, or what its byte order mark says, if not given."""
    member: str | None = None
    """File to read in an archive of several."""

    def __post_init__(self) -> None:
        if self.time_unit is not None and self.time_unit not in get_args(TimeUnit):
            raise ValueError(f"time_unit must be one of {', '.join(get_args(TimeUnit))}, got {self.time_unit!r}")
        if self.quote is not None and self.quote not in get_args(Quote):
            raise ValueError(f"quote must be one of {', '.join(get_args(Quote))}, got {self.quote!r}")
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            raise ValueError(f"min_rating must be a number, got {self.min_rating}")
        if self.delimiter is not None and (not self.delimiter or {"\n", "\r", '"'} & set(self.delimiter)):
            raise ValueError(f"delimiter must be at least one letter, no quote and no line break: {self.delimiter!r}")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ValueError(f"encoding {self.encoding!r} is not known; for example utf-16, latin-1") from None
        try:
            ZoneInfo(self.time_zone)
        except (ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError(f"time_zone {self.time_zone!r} is not known; for example Europe/Berlin") from None
        except KeyError:
            raise ValueError(f"time_zone {self.time_zone!r} is not known; for example Europe/Berlin") from None
