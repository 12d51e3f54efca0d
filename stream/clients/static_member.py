"""Makes a Faust consumer a static member of its group: under a name that it keeps over restarts (KIP-345).

When a named member ends, the group keeps its partitions for the time of a session, so that a restarted process serves
them again at once and no other worker has to take them over. A member that leaves for good must therefore be removed by
name, which aiokafka does not do when a consumer is closed.

Kafka gives the place of a name to the process that joins last. aiokafka leaves the name out of its heartbeats and
commits, so the process before is told only that the group does not know it, as after an expired session. It would then
join again and take the place back; the two would go on in turns, until one of them got an answer that aiokafka does not
know. Here a process that the group does not know first sends a heartbeat of the version that carries the name, and does
not join when the place is taken. So of two processes, the one that joined first ends, whatever the timing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiokafka.errors import KafkaError as FaustKafkaError
from aiokafka.protocol.group import HeartbeatRequest_v1, HeartbeatResponse_v1
from aiokafka.protocol.types import Int32, Schema, String
from faust.transport.consumer import Consumer
from kafka.admin import MemberToRemove
from kafka.errors import FencedInstanceIdError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.names import NameTaken

__all__ = ["StaticName"]

log = logging.getLogger(__name__)

# Answers to a heartbeat that say that no other process has the name.
_OURS = {0, RebalanceInProgressError.errno, IllegalGenerationError.errno, UnknownMemberIdError.errno}
_AGAIN_SECONDS = 0.1


class _NamedHeartbeatResponse(HeartbeatResponse_v1):
    API_VERSION = 3


class _NamedHeartbeat(HeartbeatRequest_v1):
    API_VERSION = 3
    RESPONSE_TYPE = _NamedHeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )

    def prepare(self, versions: object) -> HeartbeatRequest_v1:
        """Called by aiokafka to choose a version: every broker that knows static members has this one."""
        return self


class StaticName:
    """A member's name in its group. With an empty name the member is a dynamic one, and this class does nothing."""

    def __init__(self, connection: KafkaConnection, group: str, name: str) -> None:
        self._connection, self._group, self._name = connection, group, name
        self._member = ""  # the last id by which the group knew this process
        self._taken = False

    def watch(self, consumer: Consumer) -> None:
        """Call before the consumer's app starts."""
        if not self._name:
            return
        thread = consumer._thread
        create = thread._create_consumer

        def create_watched(loop: asyncio.AbstractEventLoop) -> Any:
            client = create(loop=loop)
            start = client.start

            async def start_watched() -> None:
                await start()  # nothing is subscribed to before it
                self._watch(client._coordinator)

            client.start = start_watched
            return client

        thread._create_consumer = create_watched  # type: ignore[method-assign]

    def _watch(self, coordinator: Any) -> None:
        """Wrap two methods of the coordinator; both run on the consumer's thread."""
        send, join = coordinator._send_req, coordinator._do_rejoin_group

        async def send_and_note(request: Any) -> Any:
            answer = await send(request)
            if getattr(answer, "error_code", 0) == FencedInstanceIdError.errno:
                self._taken = True
                raise FaustKafkaError("the name is taken")  # by a process that joined later; aiokafka has no such error
            return answer

        async def join_unless_taken(subscription: Any) -> bool:
            if not coordinator.member_id and self._member:
                try:
                    # Sent without a valid generation: the group checks the name before the generation, and only the
                    # name matters here.
                    heartbeat = _NamedHeartbeat(self._group, -1, self._member, self._name)
                    if (await coordinator._send_req(heartbeat)).error_code in _OURS:
                        # From now on join without asking. If the answer to a join gets lost, the group knows this
                        # process by a new id, and would refuse the old one as if the name were taken.
                        self._member = ""
                except FaustKafkaError as error:
                    log.debug("the group does not say who has the name %s: %s", self._name, error)
            elif not self._taken and await join(subscription):
                self._member = coordinator.member_id
                return True
            await asyncio.sleep(_AGAIN_SECONDS)
            return False

        coordinator._send_req, coordinator._do_rejoin_group = send_and_note, join_unless_taken

    def check(self) -> None:
        """Raises `NameTaken` once another process has taken the name."""
        if self._taken:
            raise NameTaken(self._name, self._group)

    def leave(self) -> None:
        """Remove the name from the group, so that others get its partitions at once. Raises `KafkaError`."""
        if self._name and not self._taken:
            with admin_client(self._connection) as admin:
                # Remove by id and name together, so that another process that took the name meanwhile stays.
                member = MemberToRemove(member_id=self._member or None, group_instance_id=self._name)
                admin.remove_group_members(self._group, [member])
