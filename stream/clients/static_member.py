"""A member of a consumer group under a name that it keeps over restarts (KIP-345).

The group keeps the partitions of a named member for its session when it ends, so that a restarted process serves them
again at once and nobody else has to take them over. A member that leaves for good must therefore be removed by name,
which neither aiokafka nor kafka-python does when a consumer is closed.
"""

from __future__ import annotations

from collections.abc import Callable

from kafka.admin import MemberToRemove

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.names import NameTaken

__all__ = ["StaticName"]


class StaticName:
    """A member's name in its group. An empty one is no name: the member is like any other, and all of this does
    nothing."""

    def __init__(self, connection: KafkaConnection, group: str, name: str) -> None:
        self._connection, self._group, self._name = connection, group, name
        self._others = 0  # looks in a row that found somebody else

    def check(self, member_id: Callable[[], str]) -> None:
        """Raises `NameTaken` when the group knows another member than this one by the name, at two looks in a row: a
        member that joins again changes its id. Call it after the first join. Raises `KafkaError`."""
        if not self._name:
            return
        own = member_id()
        with admin_client(self._connection) as admin:
            members = admin.describe_groups([self._group])[self._group]["members"]
        holder = next((member for member in members if member["group_instance_id"] == self._name), None)
        if holder is None or holder["member_id"] == own or member_id() != own:
            self._others = 0
            return
        self._others += 1
        if self._others > 1:
            raise NameTaken(self._name, self._group)

    def leave(self) -> None:
        """Take the name out of the group, so that others get its partitions at once. Raises `KafkaError`."""
        if self._name:
            with admin_client(self._connection) as admin:
                admin.remove_group_members(self._group, [MemberToRemove(group_instance_id=self._name)])
