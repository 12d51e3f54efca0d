"""The section [kafka] of the settings as a connection."""

from __future__ import annotations

from stream.cli.settings import Settings
from stream.clients.connection import KafkaConnection

__all__ = ["kafka_connection", "kafka_environment"]


def kafka_connection(settings: Settings) -> KafkaConnection:
    """How to reach Kafka, by all that is set. Raises `ConnectionConfigError`."""
    return KafkaConnection.from_environment(kafka_environment(settings))


def kafka_environment(settings: Settings) -> dict[str, str]:
    """The environment as if all settings of [kafka] stood in it."""
    given = [effective for effective in settings.section("kafka").values() if not effective.is_default]
    return {**settings.environment, **{found.setting.variables[0]: str(found.value) for found in given}}
