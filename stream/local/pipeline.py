"""All of Freshet on one machine: updater, scorer, trainer and API as supervised children."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.metrics import MetricsConfig
from stream.api.config import ApiConfig
from stream.clients.names import folder_name
from stream.local.supervisor import Child, Supervisor
from stream.wire.topics import TopicPlan

__all__ = ["Pipeline", "PipelineConfig", "free_port"]


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
    state_dir: Path = Path("freshet-state")
    """Folder of all processes, of the models, and of a Kafka that Freshet starts."""
    updaters: int = 1
    """Number of updater processes."""
    scorers: int = 1
    """Number of scorer processes."""
    apis: int = 1
    """Number of API processes; 0 for none."""
    session_seconds: float = 10.0
    """Silence after which a worker's partitions move on, unless its own section says otherwise: a killed worker is
    back sooner, and nothing waits longer than this."""
    status_port: int = 9100
    """Port of the status page on this machine; any free one when it is taken."""

    def __post_init__(self) -> None:
        for name in ("updaters", "scorers", "session_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.apis < 0:
            raise ValueError(f"apis must not be negative, got {self.apis}")
        if not 0 <= self.status_port < 65536:
            raise ValueError(f"status_port must be between 0 and 65535, got {self.status_port}")


class Pipeline:
    """The processes of `freshet up`; `metrics_urls` are the addresses of their metrics, `api_urls` those of the APIs.

    Args:
        settings: arguments of `freshet` that come before each command: `--config`, `--set`, `--log-level`.
        options: further options by kind of process.
        usual_ports: use the usual ports for /metrics if they are free, else any free ports. Set it to False if several
            pipelines may start at the same moment.
    """

    def __init__(
        self,
        config: PipelineConfig,
        bootstrap_servers: str,
        plan: TopicPlan,
        emit: Callable[[str, str], None],
        settings: Sequence[str] = (),
        options: Mapping[str, Sequence[str]] | None = None,
        *,
        usual_ports: bool = True,
    ) -> None:
        self.config, self.plan, self.bootstrap_servers = config, plan, bootstrap_servers
        self._settings, self._options, self._usual_ports = settings, options or {}, usual_ports
        self.metrics_urls: dict[str, str] = {}
        children = []
        for kind, count in (("updater", config.updaters), ("scorer", config.scorers), ("trainer", 1)):
            for number in range(count):
                name = kind if count == 1 else f"{kind}-{number}"
                children.append(self._child(kind, name, number))
        self.api_urls: list[str] = []
        for number in range(config.apis):
            children.append(self._api("api" if config.apis == 1 else f"api-{number}", number))
        self.supervisor = Supervisor(children, emit)

    def _child(self, kind: str, name: str, number: int) -> Child:
        config, plan = self.config, self.plan
        usual = getattr(MetricsConfig(), f"{kind}_port")
        port = free_port(usual if number == 0 and self._usual_ports else 0)
        self.metrics_urls[name] = f"http://127.0.0.1:{port}/metrics"
        forked = kind == "scorer"  # importing torch takes most of its start, and its users wait after a crash
        command = [
            *(() if forked else (sys.executable, "-m", "stream.cli")),
            *(*self._settings, kind),
            *("--partitions", str(plan.partitions), "--replication-factor", str(plan.replication_factor)),
            *("--prefix", plan.prefix, "--state-dir", str(config.state_dir / name)),
            *("--metrics-host", "127.0.0.1", "--metrics-port", str(port)),
        ]
        if kind != "trainer":
            command += ["--session-seconds", str(config.session_seconds)]
        if kind == "trainer":
            command += ["--artifacts", str(config.state_dir / "artifacts")]
        if kind in ("updater", "scorer"):
            command += ["--worker", f"{name}.{folder_name(config.state_dir)}"]
        command += self._options.get(kind, ())
        return Child(name, command, {"FRESHET_BOOTSTRAP_SERVERS": self.bootstrap_servers}, forked)

    def _api(self, name: str, number: int) -> Child:
        plan = self.plan
        port = free_port(ApiConfig().port if number == 0 and self._usual_ports else 0)
        self.api_urls.append(f"http://127.0.0.1:{port}")
        self.metrics_urls[name] = f"http://127.0.0.1:{port}/metrics"
        command = [
            *(sys.executable, "-m", "stream.cli", *self._settings, "api"),
            *("--partitions", str(plan.partitions), "--replication-factor", str(plan.replication_factor)),
            *("--prefix", plan.prefix, "--state-dir", str(self.config.state_dir / name), "--port", str(port)),
            *("--session-seconds", str(self.config.session_seconds), "--access-log", "off"),
            *self._options.get("api", ()),
        ]
        return Child(name, command, {"FRESHET_BOOTSTRAP_SERVERS": self.bootstrap_servers})

    @property
    def refused(self) -> str | None:
        """A child that refused to work until the cause is corrected; None if there is none."""
        return self.supervisor.refused

    def run(self, stop: threading.Event) -> bool:
        """Start all children and restart those that end, until `stop` or until a child refuses to work; `refused` then
        names that child. True when all children ended by themselves in time."""
        self.supervisor.start()
        try:
            while not stop.wait(0.2) and self.refused is None:
                self.supervisor.watch()
        finally:
            clean = self.supervisor.stop()
        return clean
