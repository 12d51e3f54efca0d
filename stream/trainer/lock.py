"""Only one trainer works on the topics of one prefix: two would overwrite each other's models.

Two mechanisms keep a second trainer out. First, every trainer joins a group that assigns the one partition of `models`;
the lock reads no records of it. A second trainer gets no partition, and refuses to start. The group removes a killed
trainer after its session. Second, a trainer that was paused for longer than its session is no longer in the group but
still believes that it has the partition. Between it and its successor decides who opened the slots last
(`stream.registry.slots`): the brokers refuse the transactions of the other one, which finds this out in `check` and
gives up.
"""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream.clients.admin import ask_coordinator
from stream.clients.connection import KafkaConnection
from stream.clients.member import GroupMember
from stream.registry.slots import SlotWriter

__all__ = ["SecondTrainer", "TrainerLock"]

log = logging.getLogger(__name__)

_SESSION_SECONDS = 10.0
_PATIENCE_SECONDS = 30.0  # waited beyond a session, for brokers that must find a coordinator first
_SETTLED_SECONDS = 1.0
_EVERY_SECONDS = 2.0  # between two checks who opened the slots last
_EXPLAINED_SECONDS = 3.0  # a longer wait is explained in the log


class SecondTrainer(RuntimeError):
    """Another trainer works on the same topics."""


class TrainerLock:
    """The lock is held when `__init__` returns; otherwise `__init__` raises `SecondTrainer`. `state_dir` is part of the
    name by which others see this trainer."""

    def __init__(
        self, connection: KafkaConnection, admin: KafkaAdminClient, group: str, topic: str, state_dir: Path
    ) -> None:
        self._admin, self._group = admin, group
        self._name = f"{socket.gethostname()}:{state_dir.absolute()}"
        self._held = False
        self._due = 0.0
        self._without: tuple[int, float] | None = None  # a generation without a partition for us, since when
        self._member = GroupMember(
            connection,
            group,
            topic,
            session_seconds=_SESSION_SECONDS,
            poll_records=1,
            fetch_bytes=1024,
            name=self._name,
        )
        try:
            self._acquire()
        except BaseException:
            self._member.close()
            raise

    def _acquire(self) -> None:
        began = time.monotonic()
        explained = False
        while not self._held:
            self._member.poll(0.2, 1)
            self._follow()
            waited = time.monotonic() - began
            if waited > _SESSION_SECONDS + _PATIENCE_SECONDS:
                raise SecondTrainer(
                    f"another trainer may work on these topics, and did not answer for {waited:.0f} s: "
                    f"{self._others()}. Stop it, or try again"
                )
            if waited > _EXPLAINED_SECONDS and not explained:
                explained = True
                log.info("waiting for the session of a former trainer to end, %.0f s at most", _SESSION_SECONDS)

    def check(self, slots: SlotWriter) -> None:
        """Call often. Raises `SecondTrainer` once another trainer has opened the slots."""
        self._member.poll(0.0, 1)
        self._member.moves.clear()
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        try:
            followed = slots.has_successor(self._admin)
        except KafkaError as error:
            log.debug("no word on who opened the slots last: %s", error)  # nothing can be moved meanwhile
            return
        if followed:
            raise SecondTrainer(f"another trainer has taken over: {self._others()}. Only one can work on these topics")

    def _follow(self) -> None:
        member, now = self._member, time.monotonic()
        while member.moves:
            move = member.moves.popleft()
            if move.partitions:
                self._held = move.kind == "assigned"
        generation = None if self._held else member.generation
        if generation is None:  # the lock is held, or the group has not settled
            self._without = None
        elif self._without is None or self._without[0] != generation:
            self._without = generation, now  # the assignment may still be on its way to `moves`
        elif now - self._without[1] > _SETTLED_SECONDS:
            raise SecondTrainer(
                f"another trainer works on these topics: {self._others()}. Stop it, or start this one with a --prefix "
                "of its own"
            )

    def _others(self) -> str:
        try:
            described = ask_coordinator(lambda: self._admin.describe_groups([self._group]))[self._group]
            own = self._member.metadata.member_id
            others = [member for member in described["members"] if member["member_id"] != own]
            return (
                ", ".join(f"{one['client_id']} at {one['client_host'].lstrip('/')}" for one in others) or "it just left"
            )
        except Exception as error:  # the refusal stands without its name  # noqa: BLE001
            return f"group {self._group} ({error})"

    def close(self) -> None:
        self._member.close()
