"""How a text file is written: encoding, delimiter, quotes, and whether its first line names the columns.

These are found from the first rows. Of the delimiters that split at least half of the rows into the same number of
columns, the one that does so for most rows is chosen; `_likelihood` has the exact order.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from stream.sources.log.known_names import known
from stream.sources.log.options import LogError, LogOptions, Quote
from stream.sources.log.times import NUMBER

__all__ = ["Dialect", "as_utf8", "looks_like_a_value", "records", "sniff"]

_DELIMITERS = ("\t", ",", ";", "|", "::", "\x01", "\x1f", " ")
_DELIMITER_WORDS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars", " ": "spaces", "::": "double colons"}
_TYPED = {"tab": "\t", "\\t": "\t", "space": " ", "\\x01": "\x01", "comma": ",", "semicolon": ";"}
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_RECORDS = 500  # rows by which a dialect is judged
_LEAST_SHARE = 0.5  # of these rows, which must have equally many columns; the others will count as malformed
_RECBOLE = re.compile(r".+:(token|float|token_seq|float_seq)")
_VALUE = re.compile(rf"{NUMBER}|\d[\d./: T+-]*\d ?(Z|UTC|GMT|AM|PM)?|\d{{8}}T\d{{6}}Z?")


@dataclass(frozen=True)
class Dialect:
    """`names` are those of the header, or positions from 0 in a file without header; `skipped` is the number of lines
    before the header or the first row."""

    delimiter: str
    quote: Quote
    escaped: bool  # quotes inside of quotes follow a backslash, instead of being doubled
    encoding: str
    header: bool
    names: tuple[str, ...]
    skipped: int

    @property
    def words(self) -> str:
        """A description for the user."""
        between = _DELIMITER_WORDS.get(self.delimiter, repr(self.delimiter))
        header = "a header" if self.header else "no header"
        return f"text in {self.encoding}, {between} between {len(self.names)} columns, {header}"


def as_utf8(chunks: Iterator[bytes], encoding: str) -> Generator[bytes]:
    r"""The text in UTF-8, without a byte order mark. Bytes that are invalid in `encoding` become escapes such as \xff.
    Only in a text declared as UTF-8 they stay, and the rows that have them are malformed."""
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        first = True
        for chunk in chunks:
            yield chunk.removeprefix(codecs.BOM_UTF8) if first else chunk
            first = False
        return
    decode = codecs.getincrementaldecoder(encoding)(errors="backslashreplace").decode
    first = True
    for chunk in chunks:
        text = decode(chunk)
        yield (text.removeprefix("\ufeff") if first else text).encode(errors="backslashreplace")
        first = first and not text
    yield decode(b"", final=True).encode(errors="backslashreplace")


def encoding_of(begin: bytes, options: LogOptions, name: str) -> str:
    """The encoding that the option or the byte order mark names; else UTF-8. Raises `LogError` for a text that looks
    like UTF-16 and has neither."""
    if options.encoding is not None:
        return options.encoding
    for mark, encoding in _BYTE_ORDER_MARKS:
        if begin.startswith(mark):
            return encoding
    zeros = begin[:2000].count(0)
    if zeros > len(begin[:2000]) / 4:
        guess = "utf-16-be" if begin[:1] == b"\0" else "utf-16-le"
        raise LogError(f"{name} is no UTF-8: type --encoding {guess}, or what it is written in")
    return "utf-8"


def records(text: str, delimiter: str, quote: Quote, escaped: bool) -> Iterator[list[str]]:
    """The rows of a text as Python's csv module reads them, without blank lines."""
    if len(delimiter) > 1:
        text, delimiter = text.replace(delimiter, "\x1f"), "\x1f"
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if quote == "none" else csv.QUOTE_MINIMAL,
        quotechar="'" if quote == "single" else '"',
        doublequote=not escaped,
        escapechar="\\" if escaped else None,
    )
    return (row for row in reader if row and not (len(row) == 1 and not row[0].strip()))


def looks_like_a_value(cell: str) -> bool:
    """Whether a cell holds a number or a time rather than the name of a column.

    >>> [looks_like_a_value(cell) for cell in ("3.5", "2014-04-07T10:51:09.277Z", "time", "")]
    [True, True, False, False]
    """
    return bool(_VALUE.fullmatch(cell.strip()))


def sniff(name: str, begin: bytes, whole: bool, options: LogOptions, least_columns: int = 3) -> Dialect:
    """The dialect of a text that begins with `begin`, which is all of it if `whole`. Raises `LogError`."""
    encoding = encoding_of(begin, options, name)
    text = b"".join(as_utf8(iter([begin]), encoding)).decode(errors="replace")
    if not whole:
        text = text[: text.rfind("\n") + 1] or text
    if not text.strip():
        raise LogError(f"{name} is empty: there is no line to find a delimiter in")
    skipped, text, delimiter = _without_remarks(text)
    delimiter = _TYPED.get(options.delimiter or "", options.delimiter) or delimiter
    best = _best(text, whole, options, delimiter)
    if best is None or best.columns < least_columns:
        raise LogError(_no_columns(name, text, options))
    header, names = _header(best.rows, best.columns, options)
    return Dialect(best.delimiter, best.quote, best.escaped, encoding, header, names, skipped)


@dataclass(frozen=True)
class _Candidate:
    delimiter: str
    quote: Quote
    escaped: bool
    rows: list[list[str]]
    columns: int
    share: float  # of the rows that have this number of columns


def _without_remarks(text: str) -> tuple[int, str, str | None]:
    """(lines before the rows, the rows, delimiter named by Excel's `sep=;`)."""
    delimiter = None
    lines = text.splitlines(keepends=True)
    skipped = 0
    while skipped < len(lines):
        line = lines[skipped].strip()
        if re.fullmatch(r'"?sep=.+"?', line):
            delimiter = line.strip('"')[4:]
        elif line and not (line[0] in "#%" and known(re.split(r"[\t,;| ]+", line.lstrip("#% "))) < 2):
            break
        skipped += 1
    return skipped, "".join(lines[skipped:]), delimiter


def _best(text: str, whole: bool, options: LogOptions, delimiter: str | None) -> _Candidate | None:
    found = []
    for between in (delimiter,) if delimiter else _DELIMITERS:
        if between not in text:
            continue
        for quote, escaped in _quotings(text, between, options):
            rows = _first_rows(text, between, quote, escaped, whole)
            if rows:
                judged = rows[1:] or rows  # the header may have a different number of columns
                columns, count = Counter(map(len, judged)).most_common(1)[0]
                found.append(_Candidate(between, quote, escaped, rows, columns, count / len(judged)))
    cutting = [candidate for candidate in found if candidate.columns > 1 and candidate.share >= _LEAST_SHARE]
    if delimiter:
        cutting = cutting or found
    return max(cutting, key=_likelihood, default=None)


def _likelihood(one: _Candidate) -> tuple[float, ...]:
    agrees = len(one.rows[0]) == one.columns  # whether the header has as many columns as the rows
    # Values may contain spaces, so the space comes last; a doubled quote is likelier than an escaped one.
    return one.delimiter != " ", one.columns > 2, round(one.share, 2), agrees, one.columns, not one.escaped


def _quotings(text: str, delimiter: str, options: LogOptions) -> Sequence[tuple[Quote, bool]]:
    quote: Quote = options.quote or "double"
    if options.quote is None and delimiter not in (",", ";", "|"):
        # Tab-separated files seldom quote values; without quoting, a quote at the beginning of a value is a letter.
        around = rf"(^|{re.escape(delimiter)})\"[^\"\n]*\"({re.escape(delimiter)}|\r?$)"
        if not re.search(around, text, re.MULTILINE):
            return [("none", False)]
    if quote == "none":
        return [("none", False)]
    mark = "'" if quote == "single" else '"'
    return [(quote, False), (quote, True)] if "\\" + mark in text else [(quote, False)]


def _first_rows(text: str, delimiter: str, quote: Quote, escaped: bool, whole: bool) -> list[list[str]]:
    rows = []
    for row in records(text, delimiter, quote, escaped):
        rows.append(row)
        if len(rows) > _RECORDS:
            break
    return rows if whole or len(rows) <= 1 else rows[:-1]  # the last row may be incomplete


def _header(rows: list[list[str]], columns: int, options: LogOptions) -> tuple[bool, tuple[str, ...]]:
    first = [cell.strip().strip('"').lstrip("#%").strip() for cell in rows[0]]
    if first and all(_RECBOLE.fullmatch(cell) for cell in first):
        first = [cell.partition(":")[0] for cell in first]
    asked = {getattr(options, role) for role in ("user", "item", "timestamp")}
    header = options.header
    if header is None:
        header = known(first) > 1 or bool(asked & set(first)) or not any(map(looks_like_a_value, first))
    if not header:
        return False, tuple(map(str, range(columns)))
    if len(first) == columns - 1:  # R writes row names without a header; other programs end each line with a delimiter
        ends_empty = all(not row[-1] for row in rows[1:] if len(row) == columns)
        first = [*first, ""] if ends_empty else ["", *first]
    return True, tuple([*first, *[""] * columns][:columns])


def _no_columns(name: str, text: str, options: LogOptions) -> str:
    line = next(line for line in text.splitlines() if line.strip())
    if options.delimiter is not None:
        return f"{name}: --delimiter {options.delimiter!r} makes fewer than three columns of {line[:80]!r}"
    if len(re.findall(r"^[\w/ ]{1,40}: .+$", text, re.MULTILINE)) > 0.7 * max(len(text.split("\n\n")) * 3, 1):
        return f"{name}: each value has a line of its own, as in {line[:80]!r}; write one line per event"
    if re.search(r"^\d+:$", text, re.MULTILINE):
        return f"{name}: lines such as {line[:80]!r} stand above their rows; write user, item and time on each"
    return (
        f"{name}: fewer than three columns in {line[:80]!r}, or a different number in each line; a log needs user, "
        "item and time in each. Name what stands between them: --delimiter"
    )
