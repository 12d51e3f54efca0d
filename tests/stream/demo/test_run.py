"""A demo on somebody's cluster keeps to topics of its own."""

import threading
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ops.local.broker import LocalBroker
from stream.cli.kafka_settings import kafka_environment
from stream.cli.settings import Settings
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.config import DemoConfig
from stream.demo.run import Demo

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


def by_properties(servers: str, folder: Path) -> Settings:
    file = folder / "client.properties"
    file.write_text(f"bootstrap.servers={servers}\n")
    return Settings(None, {"FRESHET_KAFKA_CONFIG": str(file)}, ())


def by_settings_file(servers: str, folder: Path) -> Settings:
    file = folder / "freshet.toml"
    file.write_text(f'[kafka]\nbootstrap_servers = "{servers}"\n')
    return Settings(file, {}, ())


def by_environment(servers: str, folder: Path) -> Settings:
    return Settings(None, {"FRESHET_BOOTSTRAP_SERVERS": servers}, ())


def topics_of(kafka: KafkaConnection) -> set[str]:
    with admin_client(kafka) as admin:
        return set(admin.list_topics())


@pytest.mark.parametrize("given", [by_properties, by_settings_file, by_environment])
def test_on_a_kafka_that_was_given_nothing_but_topics_of_the_demos_own_is_touched(
    given: Callable[[str, Path], Settings],
    kafka: KafkaConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever way it was given. The demo is stopped as soon as its processes are started."""

    def refuse() -> LocalBroker:
        raise AssertionError("a Kafka of its own is started")

    monkeypatch.setattr("stream.demo.run.LocalBroker", refuse)
    settings = given(kafka.bootstrap_servers, tmp_path)
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    before = topics_of(kafka)
    stop = threading.Event()
    stop.set()
    screen = Console(file=StringIO())
    Demo(replace(DemoConfig(), seconds=5), screen, kafka_environment(settings), settings.forwarded()).run(stop)
    made = topics_of(kafka) - before - {"__consumer_offsets", "__transaction_state"}
    assert len(made) > 8
    assert {topic.split("-")[0] for topic in made} == {"demo"}
    with admin_client(kafka) as admin:
        admin.delete_topics(sorted(made))
