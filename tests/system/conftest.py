"""What several tests of whole processes need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan
from tests.support.arena import Arena


@pytest.fixture
def arena(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> Iterator[Arena]:
    arena = Arena(kafka, plan, tmp_path)
    yield arena
    arena.close()
