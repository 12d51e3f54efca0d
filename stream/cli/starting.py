"""Steps of commands before their work: connect to Kafka, create topics, serve metrics, refuse unusable settings."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from stream.cli.config_fields import dotted
from stream.cli.settings import Effective, Settings
from stream.clients.connection import KafkaConnection

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from stream.health import Health
    from stream.wire.topics import TopicPlan

__all__ = [
    "Impossible",
    "Pages",
    "existing_topic",
    "own_folder",
    "served_pages",
    "started",
    "topic_plan",
    "topics_made",
    "writable",
]


_LET_GO_SECONDS = 10.0  # the time in which a worker that was told to end has ended

_own: dict[Path, int] = {}  # folders of this process, and their locks, which it holds until it ends


class Impossible(RuntimeError):
    """The command cannot work here: one line that says what is wrong, where, and what to do."""


def started(settings: Settings, grace_seconds: float | None = 8.0) -> threading.Event:
    """Set up logging and signals, see `stream.process.prepare_process`."""
    from stream.process import prepare_process

    return prepare_process(settings["process.log_level"].value, grace_seconds)


def topic_plan(settings: Settings) -> TopicPlan:
    from stream.wire.topics import TopicPlan

    return settings.read(TopicPlan)


def topics_made(connection: KafkaConnection, plan: TopicPlan) -> TopicPlan:
    """The same plan, once its topics exist. Raises `TopicError`."""
    from stream.wire.topics import ensure_topics

    ensure_topics(connection, plan)
    return plan


def writable(folder: Effective) -> Path:
    """The folder that a setting names, created if it is missing. Raises `Impossible` when it cannot be written."""
    path: Path = folder.value
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        where = f"{dotted(folder.setting.name)} ({folder.origin})"
        raise Impossible(f"{path}: {error.strerror}; name another folder by {where}, or make it writable") from None
    return path


class Pages(NamedTuple):
    """The metrics and the health of a process, which its pages show."""

    registry: CollectorRegistry
    health: Health


def own_folder(folder: Effective) -> Path:
    """`writable`, and locked for this process. Waits for some seconds if another process has the lock, because that
    process may be about to end. Raises `Impossible`."""
    path = writable(folder)
    if path.resolve() in _own:
        return path
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _LET_GO_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _own[path.resolve()] = lock
            return path
        except OSError:
            if time.monotonic() > deadline:
                os.close(lock)
                where = f"{dotted(folder.setting.name)} ({folder.origin})"
                raise Impossible(
                    f"{path}: another process works in this folder; give every process a folder of its own by {where}"
                ) from None
        time.sleep(0.05)


@contextmanager
def served_pages(settings: Settings, process: Literal["updater", "scorer", "trainer", "sink"]) -> Iterator[Pages]:
    """Serve /metrics, /healthz and /readyz at the process's address until the block ends. Raises `Impossible` when the
    address is taken."""
    from prometheus_client import CollectorRegistry

    from ops.server import serve
    from stream.health import Health

    registry, health = CollectorRegistry(), Health(settings["process.alive_seconds"].value)
    host, port = settings["metrics.host"].value, settings[f"metrics.{process}_port"]
    try:
        server = serve(registry, host, port.value, health.probes)
    except OSError as error:
        why = f"{host}:{port.value}: {error.strerror or error}"
        raise Impossible(f"{why}; give --metrics-port another port, or 0 for any free one ({port.origin})") from None
    try:
        yield Pages(registry, health)
    finally:
        server.close()


def existing_topic(connection: KafkaConnection, topic: str) -> str:
    """The topic, if it exists. Raises `TopicError` at once, where a reader would wait for the topic's offsets."""
    from stream.clients.admin import admin_client, partition_count
    from stream.wire.topics import TopicError

    with admin_client(connection) as admin:
        if not partition_count(admin, topic):
            raise TopicError(f"topic {topic} does not exist; is the --prefix right?")
    return topic
