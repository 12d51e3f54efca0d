"""The section [kafka] of the settings as a connection."""

from __future__ import annotations

from stream.cli.settings import Settings
from stream.clients.connection import KafkaConnection

__all__ = ["kafka_connection", "kafka_environment"]


def kafka_connection(settings: Settings) -> KafkaConnection:
    """The connection to Kafka, by all settings of [kafka]. Raises `ConnectionConfigError`."""
    return KafkaConnection.from_environment(kafka_environment(settings))


def kafka_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that are equivalent to all settings of [kafka]."""
    given = [effective for effective in settings.section("kafka").values() if not effective.is_default]
    return {**settings.environment, **{found.setting.variables[0]: str(found.value) for found in given}}
