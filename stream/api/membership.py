"""Which partitions this instance holds: a consumer group assigns them, and they are handed over without a gap.

This runs in a thread of its own. The member of the group reads no records, it only learns the assignment. A partition
that moves away is still followed and answered here until its new holder announces itself. So no client gets a 503 while
instances are added, removed or restarted one after another. Only after a crash are the partitions of an instance
unavailable, until another instance has copied them.
"""

from __future__ import annotations

import logging
import threading
import time

from kafka.errors import KafkaError
from kafka.structs import MemberState

from ops.metrics import ApiMetrics
from stream.api.config import ApiConfig
from stream.api.directory import Directory
from stream.api.follower import Follower
from stream.clients.admin import admin_client, ask_coordinator
from stream.clients.connection import KafkaConnection
from stream.clients.member import GroupMember
from stream.wire.topics import TopicPlan

__all__ = ["Membership"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_LINGER_SECONDS = 1.0  # after the new holder's announcement: instances that have not read it still forward to us


class Membership:
    """One instance of the API group."""

    def __init__(
        self,
        config: ApiConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        metrics: ApiMetrics,
        follower: Follower,
        directory: Directory,
    ) -> None:
        self._config, self._connection, self._metrics = config, connection, metrics
        self._follower, self._directory = follower, directory
        self._assigned: frozenset[int] = frozenset()
        self._leaving: dict[int, float] = {}  # partitions that moved away: until when they are still answered here
        self._joined = False
        self._group = plan.prefix + config.group
        self._member = GroupMember(
            connection,
            self._group,
            plan.recommendations,
            session_seconds=config.session_seconds,
            poll_records=1,
            fetch_bytes=1024,
        )

    @property
    def ready(self) -> bool:
        """Whether this instance is in the group and can answer for all of its partitions."""
        return self._joined and self._assigned <= self._follower.serving

    def run(self, leave: threading.Event, stop: threading.Event) -> None:
        """Work until `stop`; after `leave`, only until others have taken over the partitions of this instance."""
        try:
            while not leave.is_set():
                self.turn()
            if self._follower.serving:  # else there is nothing to hand over, or Kafka does not answer
                self._hand_over(stop)
        finally:
            self._member.close()
            self._directory.close()

    def turn(self) -> None:
        # The state is read before the poll: a member is stable a moment before it learns its partitions, by this poll.
        joined = self._member.metadata.state == MemberState.STABLE
        self._member.poll(_POLL_SECONDS, enough=0)
        assigned = set(self._assigned)
        while self._member.moves:
            move = self._member.moves.popleft()
            numbers = {tp.partition for tp in move.partitions}
            assigned = assigned | numbers if move.kind == "assigned" else assigned - numbers
        self._follow(frozenset(assigned))
        self._joined = joined
        for number in self._assigned & self._follower.serving:
            self._directory.announce(number)

    def _follow(self, assigned: frozenset[int]) -> None:
        now = time.monotonic()
        if assigned != self._assigned:
            self._metrics.rebalances.inc()
            log.info("partitions %s, before %s", sorted(assigned), sorted(self._assigned))
            for number in (self._assigned - assigned) & self._follower.serving:
                self._leaving[number] = now + self._config.handover_seconds
            self._assigned = assigned
        self._directory.poll()
        for number, until in list(self._leaving.items()):
            if number in assigned or now > until:
                del self._leaving[number]
            elif self._directory.elsewhere(number) is not None:
                self._leaving[number] = min(until, now + _LINGER_SECONDS)
        self._follower.hold(assigned | self._leaving.keys())

    def _hand_over(self, stop: threading.Event) -> None:
        """Leave the group, but answer for the held partitions until others do."""
        others = self._members() - 1
        self._member.close()
        if others < 1:
            return
        deadline = time.monotonic() + self._config.drain_seconds
        self._follow(frozenset())
        while self._leaving and time.monotonic() < deadline and not stop.wait(_POLL_SECONDS):
            self._follow(frozenset())

    def _members(self) -> int:
        try:
            with admin_client(self._connection) as admin:
                described = ask_coordinator(lambda: admin.describe_groups([self._group]))
                return len(described[self._group]["members"])
        except (KafkaError, KeyError, ValueError) as error:
            log.warning("how many instances there are is not known: %s: %s", type(error).__name__, error)
            return 1
