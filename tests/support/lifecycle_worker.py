"""A process that takes one step in the life of a model and kills itself at a point inside it."""

import os
import signal
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from ops.metrics import TrainerMetrics
from ops.monitor.closed_loop import ClosedLoop, ClosedLoopConfig
from stream.clients.connection import KafkaConnection
from stream.registry.slots import SlotWriter
from stream.trainer.lifecycle import ModelLifecycle
from stream.trainer.loop_file import LoopFile
from stream.wire.records import Announcement

NOW = 1_700_000_000.0


def announcement(version: str, parent: str = "") -> Announcement:
    return Announcement("live", version, f"nowhere/{version}", f"sha of {version}", parent, 1, 2, 3)


def open_lifecycle(servers: str, topic: str, folder: Path, point: str = "") -> ModelLifecycle:
    """At `point` the process is killed."""

    def crash(passed: str) -> None:
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    file = LoopFile(folder / "decisions.json")
    loop = ClosedLoop(ClosedLoopConfig(), TrainerMetrics(CollectorRegistry()), lambda: NOW, file.load())
    lifecycle = ModelLifecycle(SlotWriter(KafkaConnection(servers), topic, "trainer"), loop, file, crash)
    lifecycle.recover()
    lifecycle.follow()
    return lifecycle


def take(lifecycle: ModelLifecycle, step: str, version: str) -> None:
    match step:
        case "promote":
            lifecycle.promote(announcement(version), "drift")
        case "begin_canary":
            lifecycle.begin_canary(announcement(version), 0.25)
        case "end_canary":
            lifecycle.end_canary()
        case "roll_back":
            lifecycle.roll_back()


if __name__ == "__main__":
    servers, topic, folder, step, version, point = sys.argv[1:]
    take(open_lifecycle(servers, topic, Path(folder), point), step, version)
