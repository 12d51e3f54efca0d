"""What Freshet uses of client libraries beyond their documentation is there, and only `stream.clients` uses it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.coordinator.consumer import ConsumerCoordinator

from stream.clients.connection import KafkaConnection
from stream.clients.faust_records import RawTopic
from stream.wire.topics import TopicPlan

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "stream" / "clients"
PUBLIC = ("_replace", "_exit")  # of named tuples, and of `os`


def private_uses(path: Path) -> Iterator[tuple[int, str]]:
    """Private attributes that the module uses and does not define itself."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)]
    own |= {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")}
    for node in attributes:
        if node.attr not in own and node.attr not in PUBLIC:
            yield node.lineno, ast.unparse(node)


def test_only_the_clients_folder_reaches_into_a_client_library() -> None:
    modules = [path for path in (ROOT / "stream").rglob("*.py") if CLIENTS not in path.parents]
    assert any(private_uses(CLIENTS / "member.py"))
    assert {f"{path.name}:{line} {use}" for path in modules for line, use in private_uses(path)} == set()


@pytest.mark.kafka
def test_kafka_python_has_what_is_used(kafka: KafkaConnection, topics: TopicPlan) -> None:
    consumer = KafkaConsumer(topics.interactions, **kafka.kafka_python(), group_id=topics.prefix + "g")
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    assert isinstance(coordinator, ConsumerCoordinator)
    assert coordinator.rejoining is False and callable(coordinator.request_rejoin)
    assert coordinator._join_task is None and coordinator.is_dynamic_member() is True
    assert callable(coordinator._handle_heartbeat_response)
    assert not fetcher._completed_fetches and not fetcher._nodes_with_pending_fetch_requests
    consumer.close()
    producer = KafkaProducer(**kafka.kafka_python(), transactional_id=topics.prefix + "t", linger_ms=60_000)
    producer.init_transactions()
    producer.begin_transaction()
    assert producer._transaction_manager is not None
    assert producer._transaction_manager._pending_txn_offset_commits == {}
    assert producer._transaction_manager.producer_id_and_epoch.epoch == 0
    tp = TopicPartition(topics.histories, 0)
    producer.send(topics.histories, b"value", key=b"key", partition=0)
    with producer._accumulator._tp_lock(tp):
        assert producer._accumulator._batches[tp][-1].try_append(None, b"key", b"value", []) is not None
    result = producer._transaction_manager.begin_abort()
    producer._sender.wakeup()
    assert result.wait(timeout_ms=30_000)
    producer.close()


def test_faust_and_aiokafka_have_what_is_used(tmp_path: Path) -> None:
    app: Any = faust.App("test", broker=["aiokafka://127.0.0.1:1"], datadir=tmp_path, Topic=RawTopic, web_enabled=False)
    app.finalize()
    assert callable(app.consumer.wait_first)
    assert app.consumer._get_active_partitions() is app.consumer._active_partitions
    assert app.producer._ensure_producer.__name__ == "_ensure_producer"
    assert "_compile_decode" in vars(faust.Topic) and type(app.topic("t")) is RawTopic
    assert app.monitor.stream_inbound_time == {}


def keywords(stub: str, class_name: str) -> set[str]:
    """Settings that a stub's constructor names."""
    tree = ast.parse((ROOT / "typings" / stub).read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name]
    (init,) = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    return {argument.arg for argument in init.args.kwonlyargs}


def test_every_setting_that_a_stub_names_is_one_of_the_library(tmp_path: Path) -> None:
    for client, stub in (
        (KafkaConsumer, "kafka/consumer/group.pyi"),
        (KafkaProducer, "kafka/producer/kafka.pyi"),
        (KafkaAdminClient, "kafka/admin/client.pyi"),
    ):
        assert keywords(stub, client.__name__) <= client.DEFAULT_CONFIG.keys()
    app: Any = faust.App("test", broker=["aiokafka://127.0.0.1:1"], datadir=tmp_path, web_enabled=False)
    for name in keywords("faust/app/base.pyi", "App"):
        getattr(app.conf, name)


@pytest.mark.parametrize("library", ["kafka", "faust", "aiokafka"])
def test_stubs_agree_with_the_library(library: str) -> None:
    """They leave out what is not used and name nothing that is not there."""
    command = [sys.executable, "-m", "mypy.stubtest", library, "--ignore-missing-stub", "--concise"]
    done = subprocess.run(
        command, cwd=ROOT, env={"MYPYPATH": "typings", "PATH": ""}, capture_output=True, text=True, check=False
    )
    left_out = re.compile(
        r"stub does not have (parameter|\*\*kwargs)|metaclass differs|runtime method is abstract"
        r"|has a default value|differs from runtime type None|App.__init__ is inconsistent, runtime does not have"
    )
    found = [line for line in done.stdout.splitlines() if not left_out.search(line)]
    assert found == [], done.stderr
    assert done.stdout or done.returncode == 0, done.stderr
