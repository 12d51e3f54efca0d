"""A check of quotes before the CSV parser: it refuses a file whose quotes would make rows disappear.

A quote that opens a value and is never closed turns the rest of the file into one value. A quote that is closed by the
quote of a much later row turns the rows between into one value. Parsers accept both, and these rows are lost silently.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stream.sources.log.options import LogError

__all__ = ["QuoteGuard"]

_LINE_FEED, _BACKSLASH = 10, 92


class QuoteGuard:
    """Checks all bytes on their way to a parser for which only a quote at the beginning of a value opens a quoted one.

    `lines` is the number of line feeds so far.
    """

    def __init__(self, name: str, delimiter: bytes, quote: bytes, escaped: bool) -> None:
        self._name, self._quote, self._escaped = name, quote[0], escaped
        self._around = np.frombuffer(delimiter + b"\r\n", np.uint8)  # the bytes that may stand next to a quoted value
        self.lines = 0
        self._inside = False
        self._opened = 0  # line of the quote that is open

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks, unchanged. Raises `LogError` for a quote that would make rows disappear."""
        before = b"\n"  # the byte before the part that is checked
        held = b""
        for chunk in chunks:
            data = held + chunk
            # A run of quotes at the end is checked together with the next chunk.
            end = len(data) - 1
            while end > 0 and data[end - 1] in (self._quote, _BACKSLASH):
                end -= 1
            if end > 0:
                self._look(before + data[:end], data[end : end + 1])
                before = data[end - 1 : end]
            held = data[max(end, 0) :]
            yield chunk
        self._look(before + held, b"\n")
        if self._inside:
            raise LogError(
                f"{self._name}: the quote that opens a value in line {self._opened + 1:,} never closes. If quotes are "
                "letters here, type --quote none"
            )

    def _look(self, data: bytes, after: bytes) -> None:
        """Check `data` without its first byte, which is the byte before; `after` is the byte after `data`."""
        letters = np.frombuffer(data + after, np.uint8)
        breaks = np.flatnonzero(letters[1:-1] == _LINE_FEED) + 1
        quotes = np.flatnonzero(letters[1:-1] == self._quote) + 1
        if self._escaped and len(quotes):
            quotes = quotes[letters[quotes - 1] != _BACKSLASH]
        if len(quotes):
            begins = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
            lengths = np.diff(np.append(begins, len(quotes)))
            odd = lengths % 2 == 1  # a run of two is an empty value, or a quote inside of a value
            first = quotes[begins]
            last = first + lengths - 1
            starts = np.isin(letters[first - 1], self._around)
            ends = np.isin(letters[last + 1], self._around)
            opening = np.cumsum(odd) % 2 == (0 if self._inside else 1)
            if bool((np.where(opening, starts, ends) | ~odd).all()):
                if odd.any():
                    self._inside ^= bool(odd.sum() % 2)
                    if self._inside:
                        self._opened = self.lines + int(np.searchsorted(breaks, first[odd][-1]))
            else:
                self._follow(zip(first.tolist(), lengths.tolist(), starts.tolist(), ends.tolist(), strict=True), breaks)
        self.lines += len(breaks)

    def _follow(self, runs: Iterator[tuple[int, int, bool, bool]], breaks: np.ndarray) -> None:
        """Check the runs one by one, as the parser reads them; needed where some quotes are letters."""
        for place, length, starts, ends in runs:
            odd = length % 2 == 1
            if not self._inside:
                if starts and odd:
                    self._inside, self._opened = True, self.lines + int(np.searchsorted(breaks, place))
            elif odd:
                self._inside = False
                line = self.lines + int(np.searchsorted(breaks, place))
                if line > self._opened and not ends:
                    raise LogError(
                        f"{self._name}: the quote in line {self._opened + 1:,} takes {line - self._opened:,} line "
                        "breaks as text and ends in the middle of a value. If quotes are letters here, type "
                        "--quote none"
                    )
