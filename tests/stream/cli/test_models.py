"""`freshet model` where there is nothing to show."""

import time

import pytest

from stream.clients.connection import KafkaConnection
from tests.support.commands import freshet


@pytest.mark.kafka
@pytest.mark.parametrize("command", ["list", "rollback"])
def test_a_wrong_prefix_is_one_line_at_once(command: str, kafka: KafkaConnection, prefix: str) -> None:
    began = time.monotonic()
    environment = {"FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    done = freshet("model", command, "--prefix", prefix, environment=environment)
    assert f"{prefix}models" in done.refusal and "--prefix" in done.refusal
    assert time.monotonic() - began < 10
