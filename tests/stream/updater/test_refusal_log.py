"""The log names the first refused record of each reason, then counts."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from ops.labels import RejectionReason
from stream.updater.refusal_log import RefusalLog
from stream.wire.records import Rejected


def refused(reason: RejectionReason, offset: int) -> tuple[Any, Rejected]:
    return SimpleNamespace(topic="interactions", partition=1, offset=offset), Rejected(reason, f"why {offset}")


def test_the_first_of_each_reason_is_shown_and_the_rest_counted_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    refusals = RefusalLog(lambda: now)
    with caplog.at_level(logging.INFO, "stream.updater.refusal_log"):
        refusals.note(10, [refused("timestamp", 3), refused("timestamp", 4), refused("decode", 5)])
        refusals.note(10, [refused("timestamp", 14)])
        now += 59
        refusals.report()
        assert caplog.messages == [
            "refused interactions/1/3: timestamp: why 3 (all of them: freshet dead-letters list --reason timestamp)",
            "refused interactions/1/5: decode: why 5 (all of them: freshet dead-letters list --reason decode)",
        ]
        caplog.clear()
        now += 1
        refusals.report()
        refusals.note(5, [])
        now += 60
        refusals.report()  # nothing was refused, nothing is said
        refusals.note(4, [refused("decode", 30)])
        now += 60
        refusals.report()
        assert caplog.messages == [
            "refused in the last 60 s: 3 timestamp, 1 decode; 20.0 % of 20 records",
            "refused in the last 60 s: 1 decode; 25.0 % of 4 records",
        ]
