"""Polling as a member of a consumer group, without kafka-python's way of losing its place silently."""

from __future__ import annotations

from typing import Any

from kafka import KafkaConsumer

__all__ = ["poll_as_member"]

_JOIN_SECONDS = 0.25  # longer than an answer takes in a healthy group; no record arrives before it


def poll_as_member(consumer: KafkaConsumer, timeout_seconds: float) -> dict[Any, list[Any]]:
    """`consumer.poll`, for a consumer that subscribed as a member of a group.

    A leader that finds other partitions in its topic's metadata begins to join anew and stops its heartbeats until it
    has. When the poll that began it ends before the brokers answer, the answer itself takes the reason away: the next
    poll finds nothing to do, the heartbeats stay off, and after its session the member is thrown out. And an answer
    that comes between two polls is dropped, to ask again. So here a join that has begun goes on, in a poll that waits
    for it.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
        timeout_seconds = max(timeout_seconds, _JOIN_SECONDS)
    return consumer.poll(timeout_ms=int(timeout_seconds * 1000))
