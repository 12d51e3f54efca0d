"""Polling for what the brokers have now, not for what they had one turn ago."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer

from stream.clients.member import poll_as_member

__all__ = ["poll_fresh"]

_ANSWER_SECONDS = 0.005  # at most, for brokers that were just asked


def poll_fresh(consumer: KafkaConsumer, timeout_seconds: float, enough: int) -> dict[Any, list[Any]]:
    """`poll_as_member`, which asks again when less than `enough` records came out of memory.

    kafka-python's poll, when answers lie in memory, returns them and asks the brokers for the next, which lie in memory
    until the next poll: a consumer that rests between polls then reads everything one rest late. A poll that finds
    nothing in memory asks, waits, and leaves nothing asked for. Which of the two it is stays so from poll to poll.
    """
    found = poll_as_member(consumer, timeout_seconds)
    if timeout_seconds and found and sum(map(len, found.values())) < enough and _asked(consumer):
        for tp, records in poll_as_member(consumer, _ANSWER_SECONDS).items():
            found.setdefault(tp, []).extend(records)
    return found


def _asked(consumer: KafkaConsumer) -> bool:
    """An answer is on its way, or came meanwhile."""
    fetcher = consumer._fetcher
    return bool(fetcher._nodes_with_pending_fetch_requests or fetcher._completed_fetches)
