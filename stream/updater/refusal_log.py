"""Logs refused records: the first record of each reason in full, then once a minute the number of records.

A line for each record would fill the log at the rate of the stream; without any line, only a metric would show a
producer's mistake.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from stream.wire.records import InputRecord, Rejected

__all__ = ["RefusalLog"]

log = logging.getLogger(__name__)

_REPORT_SECONDS = 60.0


class RefusalLog:
    """Call `note` with every batch and `report` a few times a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._met: set[str] = set()  # reasons
        self._refused: Counter[str] = Counter()  # by reason, since the last report; the first of each is shown already
        self._records = 0  # consumed since then
        self._since = clock()

    def note(self, records: int, rejected: Sequence[tuple[InputRecord, Rejected]]) -> None:
        self._records += records
        for record, error in rejected:
            self._refused[error.reason] += 1
            if error.reason not in self._met:
                self._met.add(error.reason)
                where = f"{record.topic}/{record.partition}/{record.offset}"
                log.warning(
                    "refused %s: %s: %s (all of them: freshet dead-letters list --reason %s)",
                    where,
                    error.reason,
                    error.detail,
                    error.reason,
                )

    def report(self) -> None:
        """Log how many records were refused, when a minute is over and there were any."""
        seconds = self._clock() - self._since
        if seconds < _REPORT_SECONDS:
            return
        if refused := self._refused.total():
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._refused.most_common())
            share = 100 * refused / self._records
            log.warning("refused in the last %.0f s: %s; %.1f %% of %d records", seconds, reasons, share, self._records)
        self._refused.clear()
        self._records, self._since = 0, self._clock()
