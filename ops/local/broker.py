"""A real Apache Kafka for one machine: a single KRaft node as a child process.

`LocalBroker.start` returns when the broker answers a metadata request, and several brokers can run side by side on free
ports.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ops.local.kafka_install import BrokerError, find_java, resolve_jars
from ops.local.kafka_node import LOG4J2, VOTERS, format_storage, server_properties

__all__ = ["BrokerConfig", "LocalBroker", "free_ports", "run_until_signalled"]

log = logging.getLogger(__name__)

# The broker must not outlive this process. When the shell's standard input, a pipe from this process, closes, the shell
# ends the JVM and removes the folder named by $0, if any. This works in whichever way this process ends, without code
# between fork and exec.
_UNTIL_PARENT_ENDS = """
exec 3<&0
"$@" </dev/null 3<&- & child=$!
(
  read -r _ <&3
  trap '' TERM
  kill -9 $child 2>/dev/null
  while kill -0 $child 2>/dev/null; do sleep 0.1; done
  [ -z "$0" ] || rm -rf "$0"
) & reader=$!
wait $child; status=$?
kill $reader 2>/dev/null
exit $status
"""


@dataclass(frozen=True)
class BrokerConfig:
    host: str = "127.0.0.1"
    port: int = 0  # 0 takes a free port
    controller_port: int = 0
    data_dir: Path | None = None  # kept when given; else temporary and removed by `stop`
    cache_dir: Path | None = None  # of the jars; FRESHET_CACHE, XDG_CACHE_HOME or ~/.cache when not given
    heap_mib: int = 512
    optimise: bool = False  # use the JVM's second compiler; it is worth its time after a minute of load
    start_seconds: float = 60.0
    stop_seconds: float = 20.0
    properties: Mapping[str, str] = field(default_factory=dict)  # override or extend server.properties
    cluster_id: str = ""  # the same for all brokers of a cluster; random when empty
    scram_users: Mapping[str, str] = field(default_factory=dict, repr=False)  # passwords by name, SCRAM-SHA-512

    def __post_init__(self) -> None:
        if self.heap_mib < 128:
            raise ValueError(f"heap_mib must be at least 128, got {self.heap_mib}")


def free_ports(host: str, count: int) -> list[int]:
    """Unused ports below the range that the kernel gives to outgoing connections.

    A broker that is down must not have a port of that range: a client that keeps retrying could get this port for its
    own end of a connection, and the broker could then not start again.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_768), 500):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerError(f"no {count} free ports on {host} between 20000 and 32767")


class LocalBroker:
    """One broker; use as a context manager, or `start` and `stop`."""

    def __init__(self, config: BrokerConfig | None = None) -> None:
        self.config = config or BrokerConfig()
        free = free_ports(self.config.host, 2)
        self.port = self.config.port or free[0]
        self._controller_port = self.config.controller_port or free[1]
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.config.host}:{self.port}"

    @property
    def folder(self) -> Path | None:
        """Data, settings and log of the broker; None before it started and after a temporary one stopped."""
        return self._folder

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> LocalBroker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> LocalBroker:
        """Start, or start again after `kill` on the same ports and data. Raises `BrokerError`."""
        if _listens(self.config.host, self.port):
            raise BrokerError(f"{self.bootstrap_servers} is taken; another port, or 0 for a free one, would do")
        java, jars = find_java(), resolve_jars(self.config.cache_dir)
        if self._folder is None:
            kept = self.config.data_dir
            self._folder = Path(tempfile.mkdtemp(prefix="freshet-kafka-")) if kept is None else kept
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._launch(java, f"{jars}/*", self._folder)
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def _launch(self, java: str, classpath: str, folder: Path) -> None:
        config = self.config
        properties, logging_file = folder / "server.properties", folder / "log4j2.properties"
        settings = server_properties(config.host, self.port, self._controller_port, folder, config.properties)
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        logging_file.write_text(LOG4J2)
        if not (folder / "data" / "meta.properties").exists():
            format_storage(
                *(java, classpath, properties, logging_file),
                alone=VOTERS not in config.properties,
                cluster_id=config.cluster_id,
                scram_users=config.scram_users,
            )
        with (folder / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *("/bin/sh", "-c", _UNTIL_PARENT_ENDS, str(folder) if self.config.data_dir is None else ""),
                    *(java, "-Xms128m", f"-Xmx{self.config.heap_mib}m", "-XX:+UseSerialGC"),
                    *(() if self.config.optimise else ("-XX:TieredStopAtLevel=1",)),
                    *("-Xshare:auto", "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={logging_file}"),
                    *("-cp", classpath, "kafka.Kafka", str(properties)),
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        from kafka.admin import KafkaAdminClient
        from kafka.errors import KafkaError

        deadline = time.monotonic() + self.config.start_seconds
        while True:
            if not self.running:
                raise BrokerError(f"Kafka ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerError(f"Kafka is not ready after {self.config.start_seconds:.0f} s:\n{self.log_tail()}")
            if _listens(self.config.host, self.port):
                if self.config.properties.get("listeners"):
                    return  # a listener with its own security settings, which this client does not have
                try:
                    admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, request_timeout_ms=5000)
                    try:
                        if admin.describe_cluster()["brokers"]:
                            return
                    finally:
                        admin.close()
                except KafkaError as error:
                    log.debug("not ready yet: %s", error)
            time.sleep(0.1)

    def log_tail(self, lines: int = 20) -> str:
        assert self._folder is not None
        return "\n".join((self._folder / "broker.log").read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """Send SIGKILL, as in a crash; `start` starts the same broker again."""
        _end(self._process, signal.SIGKILL, self.config.stop_seconds)
        self._process = None

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after `stop_seconds`; a temporary folder is removed."""
        _end(self._process, signal.SIGTERM, self.config.stop_seconds)
        self._process = None
        if self._folder is not None and self.config.data_dir is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _end(process: subprocess.Popen[bytes] | None, number: signal.Signals, grace_seconds: float) -> None:
    """Send a signal to the JVM that is a child of `process`, and SIGKILL to the whole group after `grace_seconds`."""
    if process is None:
        return
    if process.poll() is None:
        for child in _children(process.pid):
            os.kill(child, number)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            log.warning("Kafka still runs after %.0f s, killing it", grace_seconds)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children() if "java" in child.name()]


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def run_until_signalled(config: BrokerConfig, stop: threading.Event) -> int:
    """`freshet broker`: run until `stop`; exit code 1 when the broker ends by itself."""
    with LocalBroker(config) as broker:
        print(f"Apache Kafka answers at {broker.bootstrap_servers}", flush=True)
        while not stop.wait(0.5):
            if not broker.running:
                print(f"Kafka ended:\n{broker.log_tail()}", file=sys.stderr)
                return 1
    return 0
