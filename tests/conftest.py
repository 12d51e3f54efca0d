"""One real Apache Kafka for the session, topics of its own for each test, and the real logs when they are there."""

import os

# Torch's threads wait by spinning: two tests side by side would take each other's cores. Processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ops.local.broker import LocalBroker
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan, ensure_topics

settings.register_profile("freshet", deadline=None, derandomize=True)
settings.load_profile("freshet")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaConnection]:
    """FRESHET_BOOTSTRAP_SERVERS when set, else a broker that ends with the session."""
    if os.environ.get("FRESHET_BOOTSTRAP_SERVERS"):
        yield KafkaConnection.from_environment(os.environ)
        return
    with LocalBroker() as broker:
        yield KafkaConnection(broker.bootstrap_servers)


@pytest.fixture
def prefix() -> str:
    """Begins names of topics and groups nobody else uses."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture
def plan(prefix: str) -> TopicPlan:
    """Topics nobody else uses."""
    return TopicPlan(prefix=prefix, partitions=2)


@pytest.fixture
def topics(kafka: KafkaConnection, plan: TopicPlan) -> TopicPlan:
    """The same, made already."""
    ensure_topics(kafka, plan)
    return plan


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the MovieLens logs."""
    folder = Path(os.environ.get("FRESHET_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "ml-100k.inter.gz").exists():
        pytest.skip(f"no MovieLens logs in {folder}; set FRESHET_DATA")
    return folder
