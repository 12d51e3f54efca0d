"""The sections of the settings file and the config classes behind them. A new section is one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

__all__ = ["SECTIONS", "SHARED", "Section", "found"]


@dataclass(frozen=True)
class Section:
    """`[name]`: the fields of one config class, which is imported when a command needs it.

    With `each`, the class of a table, the section is a table of tables, `[name.anything]`: `config` holds them by name.
    """

    name: str
    config: str  # "module:Class"
    meaning: str
    each: str = ""
    extra: Mapping[str, tuple[str, str, tuple[str, ...]]] = field(default_factory=dict)
    """Texts that are no field of the class: name -> (default, meaning, environment variables)."""
    variables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables of the environment by field, beside the derived `FRESHET_<SECTION>_<FIELD>`."""
    left_out: frozenset[str] = frozenset()
    """Fields that no user sets: they have to be the same in several places, or tests need them."""
    base: str = ""
    """"key=module:function": called with the extra text `key`, it makes the instance that has the defaults."""

    def kind(self) -> type:
        """The config class of the section."""
        return found(self.config)

    def table_kind(self) -> type:
        """The config class that has the fields: of the section, or of each of its tables."""
        return found(self.each or self.config)


def found(address: str) -> Any:
    """The object "module:name", imported."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


SECTIONS = {
    section.name: section
    for section in (
        Section(
            "kafka",
            "stream.clients.connection:KafkaConnection",
            "How to reach Kafka.",
            extra={
                "properties_file": (
                    "",
                    "Properties file of a Java or librdkafka client; the settings here come before it.",
                    ("FRESHET_KAFKA_CONFIG",),
                ),
                "sasl_password_file": (
                    "",
                    "File that holds the SASL password and nothing else.",
                    ("FRESHET_SASL_PASSWORD_FILE",),
                ),
            },
        ),
        Section("topics", "stream.wire.topics:TopicPlan", "The topics; alike in all processes."),
        Section("limits", "stream.wire.records:Limits", "What an event may be; alike in all processes."),
        Section("input", "stream.wire.mapping:InputMapping", "The form of the events that others write."),
        Section(
            "events",
            "stream.wire.meaning:EventKinds",
            "What the events of a kind mean: `[events.view]`, `[events.buy]`, ... A kind without a table counts with "
            "the weight of its event and hides its item for ever.",
            each="stream.wire.meaning:EventKind",
        ),
        Section("items", "stream.wire.catalogue:CatalogueConfig", "Which items may be listed."),
        Section("windows", "ops.monitor.windows:WindowConfig", "The drift monitor's windows; alike in all processes."),
        Section(
            "updater",
            "stream.updater.config:UpdaterConfig",
            "Interactions in, histories and refreshes out.",
            left_out=frozenset({"group"}),
        ),
        Section(
            "scorer",
            "stream.scorer.config:ScorerConfig",
            "Refreshes in, ranked lists out.",
            left_out=frozenset({"group"}),
            variables={"device": ("FRESHET_DEVICE",)},
        ),
        Section(
            "trainer",
            "stream.trainer.config:TrainerConfig",
            "Histories in, models out.",
            left_out=frozenset({"updater_group", "scorer_group"}),
            variables={"device": ("FRESHET_DEVICE",)},
        ),
        Section(
            "model",
            "model.config:ModelConfig",
            "A model that is trained from nothing; its children keep what it had.",
            extra={"preset": ("stream", "Name of the configuration that the other settings of this table change.", ())},
            base="preset=model.config:preset",
        ),
        Section(
            "process",
            "stream.process:ProcessConfig",
            "Every process.",
            variables={"log_level": ("FRESHET_LOG_LEVEL",)},
        ),
        Section("api", "stream.api.config:ApiConfig", "Lists and events over HTTP.", left_out=frozenset({"group"})),
        Section("sink", "stream.sinks.config:SinkConfig", "Lists carried on to Redis.", left_out=frozenset({"group"})),
        Section("metrics", "ops.metrics:MetricsConfig", "Where each process serves /metrics."),
        Section("up", "stream.local.pipeline:PipelineConfig", "`freshet up`: all processes on this machine."),
        Section("demo", "stream.demo.config:DemoConfig", "`freshet demo`."),
        Section("log", "stream.sources.log.options:LogOptions", "How log files are read: demo, replay, evaluate."),
        Section("simulate", "stream.sources.simulate:WorldConfig", "The world of `freshet simulate`."),
    )
}

# A field that holds one of these classes takes it from the section of that name.
SHARED = {
    "WindowConfig": "windows",
    "ModelConfig": "model",
    "LogOptions": "log",
    "Limits": "limits",
    "InputMapping": "input",
    "EventKinds": "events",
    "CatalogueConfig": "items",
}
