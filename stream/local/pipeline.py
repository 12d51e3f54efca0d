"""All of Freshet on one machine: updater, scorer and trainer as supervised children."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stream.local.supervisor import Child, Supervisor
from stream.wire.topics import TopicPlan

__all__ = ["METRICS_PORTS", "Pipeline", "PipelineConfig", "free_port"]

METRICS_PORTS = {"updater": 9101, "scorer": 9102, "trainer": 9103}


def free_port(preferred: int = 0, host: str = "127.0.0.1") -> int:
    """`preferred` when nothing listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise OSError(f"no free port on {host}")


@dataclass(frozen=True)
class PipelineConfig:
    state_dir: Path
    bootstrap_servers: str
    plan: TopicPlan = field(default_factory=TopicPlan)
    updaters: int = 1
    scorers: int = 1
    log_level: str = "info"
    usual_ports: bool = True  # of /metrics, when free; else any: two pipelines may begin at the same moment
    window_seconds: float = 900.0  # event time that is judged together
    session_seconds: float = 10.0  # a killed worker is back in less, and its partitions wait for no longer than this
    updater_options: Sequence[str] = ()
    scorer_options: Sequence[str] = ()
    trainer_options: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("updaters", "scorers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Pipeline:
    """The processes behind `freshet up`; `metrics_urls` says where each serves its metrics."""

    def __init__(self, config: PipelineConfig, emit: Callable[[str, str], None]) -> None:
        self.config = config
        self.metrics_urls: dict[str, str] = {}
        children = []
        for kind, count, options in (
            ("updater", config.updaters, config.updater_options),
            ("scorer", config.scorers, config.scorer_options),
            ("trainer", 1, config.trainer_options),
        ):
            for number in range(count):
                name = kind if count == 1 else f"{kind}-{number}"
                children.append(self._child(kind, name, number, options))
        self.supervisor = Supervisor(children, emit)

    def _child(self, kind: str, name: str, number: int, options: Sequence[str]) -> Child:
        config, plan = self.config, self.config.plan
        port = free_port(METRICS_PORTS[kind] if number == 0 and config.usual_ports else 0)
        self.metrics_urls[name] = f"http://127.0.0.1:{port}/metrics"
        command = [
            *(sys.executable, "-m", "stream.cli", "--log-level", config.log_level, kind),
            *("--partitions", str(plan.partitions), "--replication-factor", str(plan.replication_factor)),
            *("--prefix", plan.prefix, "--window-seconds", str(config.window_seconds)),
            *("--state-dir", str(config.state_dir / name), "--metrics-port", str(port)),
        ]
        if kind != "trainer":
            command += ["--session-seconds", str(config.session_seconds)]
        if kind == "trainer":
            command += ["--artifacts", str(config.state_dir / "artifacts")]
        if kind == "updater":
            command += ["--worker", name]
        return Child(name, [*command, *options], {"FRESHET_BOOTSTRAP_SERVERS": config.bootstrap_servers})

    def run(self, stop: threading.Event) -> bool:
        """Start everything and keep it alive until `stop`; True when all children ended by themselves in time."""
        self.supervisor.start()
        try:
            while not stop.wait(0.2):
                self.supervisor.watch()
        finally:
            clean = self.supervisor.stop()
        return clean
