"""An updater in a process of its own that the fault tests kill at a chosen point.

    python fault_worker.py '{"bootstrap_servers": ..., "prefix": ..., "state_dir": ..., ...}'

Prints `ready` when it owns partitions. With `point` and `nth` it kills itself the nth time it passes that point,
or sends itself another `signal`.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry

from ops.metrics import UpdaterMetrics
from stream.clients.connection import KafkaConnection
from stream.process import prepare_process
from stream.updater.config import UpdaterConfig
from stream.updater.worker import Updater
from stream.wire.topics import TopicPlan


def main() -> None:
    options = json.loads(sys.argv[1])
    stop = prepare_process("info")
    passed = 0

    def crash(point: str) -> None:
        nonlocal passed
        if point == options.get("point"):
            passed += 1
            if passed == options["nth"]:
                os.kill(os.getpid(), options.get("signal", signal.SIGKILL))

    config = UpdaterConfig(
        Path(options["state_dir"]),
        worker=options.get("worker", "w"),
        history_items=options.get("history_items", 20),
        checkpoint_seconds=options.get("checkpoint_seconds", 0.2),
        session_seconds=options.get("session_seconds", 6.0),
        poll_records=options.get("poll_records", 50),
        transaction_seconds=options.get("transaction_seconds", 8.0),
    )
    plan = TopicPlan(options["prefix"], options.get("partitions", 2))
    metrics = UpdaterMetrics(CollectorRegistry())
    updater = Updater(config, KafkaConnection(options["bootstrap_servers"]), plan, metrics, crash=crash)
    announced = threading.Event()

    class Announcing(threading.Thread):
        def run(self) -> None:
            while not stop.wait(0.05):
                if metrics.progress_timestamp._value.get() and not announced.is_set():
                    announced.set()
                    print("ready", flush=True)

    Announcing(daemon=True).start()
    updater.run(stop)


if __name__ == "__main__":
    main()
