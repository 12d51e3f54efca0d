"""A real Apache Kafka for one machine: a single KRaft node as a child process.

The jars are resolved once by Maven from `kafka-pom.xml` into a cache outside the work tree. `LocalBroker.start` returns
when the broker answers a metadata request, and several brokers can run side by side on free ports.
"""

from __future__ import annotations

import base64
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
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from xml.etree import ElementTree

__all__ = [
    "BrokerConfig",
    "BrokerError",
    "LocalBroker",
    "free_ports",
    "new_cluster_id",
    "resolve_jars",
    "run_until_signalled",
]

log = logging.getLogger(__name__)

_POM = Path(__file__).with_name("kafka-pom.xml")
_JAVA_AT_LEAST = 17
_WAYS_OUT = (
    "Three ways on: install OpenJDK 17 or newer and Maven (Debian: apt-get install openjdk-17-jre-headless maven); "
    "start Kafka in containers with ops/compose.yaml; or set FRESHET_BOOTSTRAP_SERVERS to a Kafka you have."
)
# A child outlives nobody: when its standard input, a pipe held by this process, closes, the shell ends the JVM and
# removes the folder named by $0, if any. This holds however this process dies, without code between fork and exec.
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


class BrokerError(RuntimeError):
    """The broker cannot be resolved or started; the message says what to do."""


@dataclass(frozen=True)
class BrokerConfig:
    host: str = "127.0.0.1"
    port: int = 0  # 0 takes a free one
    controller_port: int = 0
    data_dir: Path | None = None  # kept when given; else temporary and removed by `stop`
    cache_dir: Path | None = None  # of the jars; FRESHET_CACHE, XDG_CACHE_HOME or ~/.cache when not given
    heap_mib: int = 512
    optimise: bool = False  # let the JVM compile its busiest code again, with care: pays after a minute of load
    start_seconds: float = 60.0
    stop_seconds: float = 20.0
    properties: Mapping[str, str] = field(default_factory=dict)  # override or extend server.properties
    cluster_id: str = ""  # of several brokers alike; a random one when empty
    scram_users: Mapping[str, str] = field(default_factory=dict, repr=False)  # passwords by name, SCRAM-SHA-512

    def __post_init__(self) -> None:
        if self.heap_mib < 128:
            raise ValueError(f"heap_mib must be at least 128, got {self.heap_mib}")


def resolve_jars(cache_dir: Path | None = None) -> Path:
    """The folder of Kafka's jars, downloaded by Maven when it is not cached. Raises `BrokerError`."""
    version = ElementTree.parse(_POM).findtext(".//{*}kafka.version")
    cache = cache_dir or _default_cache()
    jars = cache / f"kafka-{version}-{_pom_fingerprint()}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(f"Maven (mvn) is not installed and the Kafka jars are not cached in {jars}. {_WAYS_OUT}")
    cache.mkdir(parents=True, exist_ok=True)
    log.info("resolving Apache Kafka %s into %s (once)", version, jars)
    with tempfile.TemporaryDirectory(dir=cache, prefix="resolving-") as folder:
        command = [maven, "-B", "-q", "-f", str(_POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        result = subprocess.run(
            [*command, f"-DoutputDirectory={folder}/jars"], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise BrokerError(f"Maven could not resolve Apache Kafka:\n{result.stdout[-2000:]}\n{_WAYS_OUT}")
        try:
            (Path(folder) / "jars").rename(jars)
        except OSError:
            if not jars.is_dir():  # else another process was first, with the same content
                raise
    return jars


def _default_cache() -> Path:
    if chosen := os.environ.get("FRESHET_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freshet"


def _pom_fingerprint() -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, _POM.read_text()).hex[:8]


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if java is None:
        raise BrokerError(f"Java is not installed. {_WAYS_OUT}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = shown.partition('version "')[2].partition('"')[0]
    major = version.split(".")[0].split("-")[0]
    if not major.isdigit() or int(major) < _JAVA_AT_LEAST:
        raise BrokerError(f"Java {_JAVA_AT_LEAST} or newer is needed, {java} is {version or shown!r}. {_WAYS_OUT}")
    return java


def free_ports(host: str, count: int) -> list[int]:
    """Ports nobody uses, below the range the kernel gives to outgoing connections: a client that keeps knocking at a
    broker which is down would sooner or later be given that very port, and the broker could not come back."""
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
        java, jars = _java(), resolve_jars(self.config.cache_dir)
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
        properties, logging_file = folder / "server.properties", folder / "log4j2.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        logging_file.write_text(_LOG4J2)
        if not (folder / "data" / "meta.properties").exists():
            self._format(java, classpath, properties, logging_file)
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

    def _properties(self) -> dict[str, str]:
        host, folder = self.config.host, self._folder
        assert folder is not None
        defaults = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": f"{host}:{self._controller_port}",
            "listeners": f"PLAINTEXT://{host}:{self.port},CONTROLLER://{host}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{host}:{self.port},CONTROLLER://{host}:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(folder / "data"),
            # One node holds every internal topic once.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            "auto.create.topics.enable": "false",
            "message.max.bytes": str(16 * 1024 * 1024),
            "num.network.threads": "2",
            "num.io.threads": "2",
            "log.cleaner.backoff.ms": "500",
            # A broker that crashed is let back in once its old session is over.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "2000",
        }
        if "controller.quorum.voters" in self.config.properties:
            del defaults["controller.quorum.bootstrap.servers"]
        return {**defaults, **self.config.properties}

    def _format(self, java: str, classpath: str, properties: Path, logging_file: Path) -> None:
        alone = "controller.quorum.voters" not in self.config.properties
        result = subprocess.run(
            [
                *(java, "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={logging_file}"),
                *("-cp", classpath, "kafka.tools.StorageTool", "format", *(["--standalone"] if alone else [])),
                *(f"--cluster-id={self.config.cluster_id or new_cluster_id()}", "-c", str(properties)),
                *(word for name, password in self.config.scram_users.items() for word in _scram(name, password)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise BrokerError(f"Kafka could not format its storage:\n{result.stdout[-1000:]}{result.stderr[-1000:]}")

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
                    return  # a listener of its own security: only its clients can ask for metadata
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
        """SIGKILL, as a crash would; `start` brings the same broker back."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, SIGKILL after the grace; a temporary folder is removed."""
        self._signal(signal.SIGTERM)
        if self._folder is not None and self.config.data_dir is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            for child in _children(process.pid):
                os.kill(child, number)
            try:
                process.wait(self.config.stop_seconds)
            except subprocess.TimeoutExpired:
                log.warning("Kafka still runs after %.0f s, killing it", self.config.stop_seconds)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._process = None


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")  # it may begin with a dash


def _scram(name: str, password: str) -> tuple[str, str]:
    return "--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"


def _children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children() if "java" in child.name()]


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


_LOG4J2 = """\
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = OUT
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss} %p %m (%c{1})%n
"""


def run_until_signalled(config: BrokerConfig, stop: threading.Event) -> int:
    """`freshet broker`: run until `stop`; exit code 1 when the broker ends by itself."""
    with LocalBroker(config) as broker:
        print(f"Apache Kafka answers at {broker.bootstrap_servers}", flush=True)
        while not stop.wait(0.5):
            if not broker.running:
                print(f"Kafka ended:\n{broker.log_tail()}", file=sys.stderr)
                return 1
    return 0
