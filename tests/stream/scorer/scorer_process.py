"""`freshet scorer` in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stream.clients.connection import KafkaConnection
from stream.demo.scrape import Scrape, scrape
from stream.local.pipeline import free_port
from stream.wire.topics import TopicPlan

__all__ = ["Process", "until"]


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


class Process:
    """`freshet scorer` in a process of its own."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, *options: str) -> None:
        port = free_port()
        self._url = {"scorer": f"http://127.0.0.1:{port}/metrics"}
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        command = [
            *(sys.executable, "-m", "stream.cli", "scorer", "--prefix", plan.prefix, "--device", "cpu"),
            *("--partitions", str(plan.partitions), "--state-dir", str(folder), "--metrics-port", str(port)),
            *("--session-seconds", "6", *options),
        ]
        environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def look(self) -> Scrape:
        return scrape(self._url)

    def total(self, name: str, **labels: str) -> float:
        return self.look().total(f"freshet_{name}", **labels)

    def started(self) -> None:
        until(lambda: self.total("progress_timestamp_seconds"), f"progress, see {self.log}")

    def problems(self) -> list[str]:
        """Lines of its log that are more than information, from their first word on."""
        lines = self.log.read_text().splitlines()
        usual = re.compile(r"[0-9:]+ (INFO |.* GroupCoordinatorNotAvailableError$)")  # a cluster's first group
        return [line.split(maxsplit=2)[-1] for line in lines if usual.match(line) is None]

    def end(self) -> tuple[int, float]:
        """Exit code and seconds after SIGTERM."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        return code, time.monotonic() - began
