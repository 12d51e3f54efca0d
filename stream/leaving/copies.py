"""Copies of histories and lists for reading (the HTTP API and Redis), and whether a user is erased from them.

Both copies follow the topics by themselves. A copy is checked only if its address is given.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
import redis
from kafka.admin import KafkaAdminClient

from stream.clients.admin import ask_coordinator
from stream.leaving.folder import LeavingError
from stream.sinks.redis_sink import RedisSink
from stream.wire.topics import API_GROUP, SINK_GROUP, TopicPlan

__all__ = ["ApiReader", "Copy", "look_at_api", "look_at_redis"]

_LOOK_SECONDS = 0.2
_ANSWER_SECONDS = 10.0


class Copy(msgspec.Struct):
    """What was found of a copy."""

    what: Literal["api", "redis"]
    processes: int
    erased: bool | None  # None: the copy was not checked
    note: str


class ApiReader:
    """Reads from `freshet api`; any instance answers for all users. Raises `LeavingError` for an invalid URL."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LeavingError(f"the API is at http://host:port, got {url!r}")
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str) -> Mapping[str, Any] | None:
        """The answer; None for 404. Raises OSError."""
        request = urllib.request.Request(self._url + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                return msgspec.json.decode(answer.read(), type=dict[str, Any])
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def not_erased(self, user: str, time_ms: int) -> str:
        """Why the user's data up to this time is not erased; empty if it is erased."""
        path = f"/v1/users/{quote(user, safe='')}"
        try:
            history, found = self.get(f"{path}/history"), self.get(f"{path}/recommendations")
        except urllib.error.HTTPError as error:
            why = {401: "; FRESHET_TOKEN has a token", 403: "; the token needs the scope read"}.get(error.code, "")
            return f"the API answers with {error.code}{why}"
        except (OSError, msgspec.DecodeError) as error:
            return f"the API does not answer: {error}"
        if history is not None and history["forgotten"] < time_ms:
            return "the API has the history"
        if found is None or (found["known"] and found["as_of"] <= time_ms):
            return "the API has the list"
        return ""


def look_at_api(
    admin: KafkaAdminClient, plan: TopicPlan, reader: ApiReader | None, user: str, time_ms: int, deadline: float
) -> Copy:
    processes = _members(admin, plan.prefix + API_GROUP)
    if reader is None:
        note = "an instance erases the user when it has read these offsets; --api URL looks whether it has"
        return Copy("api", processes, None, note)
    why = _until_none(lambda: reader.not_erased(user, time_ms), deadline)
    return Copy("api", processes, not why, why or "it has neither a history nor a list from before the wish")


def look_at_redis(
    admin: KafkaAdminClient,
    plan: TopicPlan,
    sink: RedisSink | None,
    key: bytes,
    deletions: Mapping[int, int | None],
    time_ms: int,
    deadline: float,
) -> list[Copy]:
    """Whether Redis has erased the list; no `Copy` if there is neither a sink nor a process.

    `deletions`: the offset of the list's deletion by partition; None where there is none yet. `time_ms`: the time of
    the wish; a list with a later event belongs to a user who came back.
    """
    processes = _members(admin, plan.prefix + SINK_GROUP)
    if sink is None:
        note = "a sink deletes the key when it has read these offsets; --redis URL looks whether it has"
        return [Copy("redis", processes, None, note)] if processes else []
    why = _until_none(lambda: _in_redis(sink, key, deletions, time_ms), deadline)
    return [Copy("redis", processes, not why, why or "the key is gone, and the deletions have been read")]


def _in_redis(sink: RedisSink, key: bytes, deletions: Mapping[int, int | None], time_ms: int) -> str:
    try:
        for partition, offset in deletions.items():
            position = sink.position(partition)
            if offset is None or position is None or position.next_offset <= offset:
                return f"the deletion of partition {partition} has not been read: does `freshet sink` run?"
        return "the key is there" if sink.has(key, time_ms) else ""
    except redis.RedisError as error:
        return f"Redis does not answer: {type(error).__name__}"


def _until_none(why: Callable[[], str], deadline: float) -> str:
    """Ask until `why` is empty or the deadline has passed; returns the last answer."""
    while (found := why()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return found


def _members(admin: KafkaAdminClient, group: str) -> int:
    return len(ask_coordinator(lambda: admin.describe_groups([group]))[group]["members"])
