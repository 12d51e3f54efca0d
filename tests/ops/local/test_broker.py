"""A real broker as a child process: it starts, keeps its data through a crash, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from ops.local.broker import _UNTIL_PARENT_ENDS as UNTIL_PARENT_ENDS
from ops.local.broker import BrokerConfig, LocalBroker
from ops.local.kafka_install import BrokerError, resolve_jars
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).parents[3]


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def create_topic(connection: KafkaConnection, topic: str, configs: dict[str, str] | None = None) -> None:
    admin = admin_client(connection)
    try:
        spec = {"num_partitions": 1, "replication_factor": 1}
        admin.create_topics({topic: spec | {"configs": configs or {}}}, wait_for_metadata=True)
    finally:
        admin.close()


def read_all(connection: KafkaConnection, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    consumer = KafkaConsumer(
        **connection.kafka_python(), isolation_level="read_committed", auto_offset_reset="earliest"
    )
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    (end,) = consumer.end_offsets([partition]).values()
    found: list[tuple[bytes | None, bytes | None]] = []
    while consumer.position(partition) < end:
        for records in consumer.poll(timeout_ms=200).values():
            found += [(record.key, record.value) for record in records]
    consumer.close()
    return found


def send(connection: KafkaConnection, topic: str, *records: tuple[bytes, bytes]) -> None:
    producer = KafkaProducer(**connection.kafka_python())
    for future in [producer.send(topic, value, key=key) for key, value in records]:
        future.get(timeout=20)
    producer.close()


def test_transactions_hold_records_and_offsets_together(kafka: KafkaConnection, prefix: str) -> None:
    source, target, group = prefix + "source", prefix + "target", prefix + "group"
    create_topic(kafka, source)
    create_topic(kafka, target)
    send(kafka, source, (b"k", b"1"), (b"k", b"2"))
    consumer = KafkaConsumer(
        source,
        **kafka.kafka_python(),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    until(lambda: bool(consumer.poll(timeout_ms=200)) or bool(consumer.assignment()), "an assignment")
    partition = TopicPartition(source, 0)
    producer = KafkaProducer(**kafka.kafka_python(), transactional_id=prefix + "worker")
    producer.init_transactions()

    producer.begin_transaction()
    producer.send(target, b"aborted", key=b"k").get(timeout=20)
    producer.send_offsets_to_transaction({partition: OffsetAndMetadata(1, "", -1)}, consumer.group_metadata())
    producer.abort_transaction()
    assert consumer.committed(partition) is None

    producer.begin_transaction()
    producer.send(target, b"committed", key=b"k").get(timeout=20)
    producer.send_offsets_to_transaction({partition: OffsetAndMetadata(2, "", -1)}, consumer.group_metadata())
    producer.commit_transaction()
    assert consumer.committed(partition) == 2
    producer.close()
    consumer.close()
    assert read_all(kafka, target) == [(b"k", b"committed")]


def test_compaction_keeps_the_last_value_of_a_key(kafka: KafkaConnection, prefix: str) -> None:
    topic = prefix + "table"
    quickly = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    create_topic(kafka, topic, quickly)
    for number in range(5):
        send(kafka, topic, (b"a", b"%d" % number), (b"b", b"%d" % number))
        time.sleep(0.11)  # the next record then rolls the segment: only closed segments are compacted

    def compacted() -> bool:
        send(kafka, topic, (b"pulse", b""))
        return [value for key, value in read_all(kafka, topic) if key == b"a"] == [b"4"]

    until(compacted, "compaction")
    assert dict(read_all(kafka, topic))[b"b"] == b"4"


def test_a_crashed_broker_comes_back_with_its_data_and_a_stopped_one_leaves_nothing(
    kafka: KafkaConnection, tmp_path: Path
) -> None:
    with LocalBroker() as broker:  # beside the one of the session
        connection = KafkaConnection(broker.bootstrap_servers)
        assert connection != kafka
        create_topic(connection, "kept")
        send(connection, "kept", (b"k", b"before"))
        folder = broker.folder
        broker.kill()
        assert not broker.running
        broker.start()
        send(connection, "kept", (b"k", b"after"))
        assert read_all(connection, "kept") == [(b"k", b"before"), (b"k", b"after")]
    assert not broker.running and folder is not None and not folder.exists()


def test_the_command_keeps_its_data_folder_and_ends_on_sigterm_or_with_its_parent(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def start() -> tuple[subprocess.Popen[str], KafkaConnection]:
        command = [sys.executable, "-m", "stream.cli", "broker", "--port", "0", "--data-dir", str(data)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, KafkaConnection(process.stdout.readline().split()[-1])

    process, connection = start()
    create_topic(connection, "kept")
    send(connection, "kept", (b"k", b"v"))
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("java" in child.name() for child in children)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert psutil.wait_procs(children, timeout=5)[1] == []

    process, connection = start()  # on other ports
    assert read_all(connection, "kept") == [(b"k", b"v")]
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize("parent_ends", [True, False])
def test_a_temporary_folder_goes_with_the_parent_and_survives_a_crash(tmp_path: Path, parent_ends: bool) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    process = subprocess.Popen(["/bin/sh", "-c", UNTIL_PARENT_ENDS, str(folder), "sleep", "60"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    until(lambda: len(psutil.Process(process.pid).children()) == 2, "the child and its guard")
    children = psutil.Process(process.pid).children()
    until(lambda: any(child.name() == "sleep" for child in children), "the child's own program")
    if parent_ends:
        process.stdin.close()
    else:
        next(child for child in children if child.name() == "sleep").kill()
    assert process.wait(10) != 0
    process.stdin.close()
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)
    assert folder.exists() is not parent_ends


def test_a_taken_port_is_said_before_java_starts(kafka: KafkaConnection) -> None:
    if os.environ.get("FRESHET_BOOTSTRAP_SERVERS"):
        pytest.skip("the session's broker is not on this machine")
    host, port = kafka.servers[0].split(":")
    with pytest.raises(BrokerError, match=f"{port} is taken"):
        LocalBroker(BrokerConfig(host=host, port=int(port))).start()


def test_a_broker_that_cannot_start_says_why() -> None:
    broker = LocalBroker(BrokerConfig(properties={"num.io.threads": "none"}))
    with pytest.raises(BrokerError, match=r"num\.io\.threads"):
        broker.start()
    assert not broker.running and broker.folder is None


WAYS_OUT = "install OpenJDK 17.*containers.*FRESHET_BOOTSTRAP_SERVERS"


def test_a_missing_java_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BrokerError, match=WAYS_OUT):
        LocalBroker().start()


def test_an_old_java_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(BrokerError, match=r"'11\.0\.2'.*" + WAYS_OUT):
        LocalBroker().start()


def test_a_missing_maven_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match=r"Maven.*" + WAYS_OUT):
        resolve_jars(tmp_path)


def test_two_that_resolve_at_once_end_with_one_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"  # stands in for the download, and takes a moment as it does
    maven.write_text(
        "#!/bin/sh\n"
        'for option; do case "$option" in -DoutputDirectory=*) jars="${option#*=}";; esac; done\n'
        'mkdir "$jars"; sleep 0.2; echo jar > "$jars/a.jar"\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: resolve_jars(cache), range(2))
    assert first == second and [file.name for file in first.iterdir()] == ["a.jar"]
    assert list(cache.iterdir()) == [first]
