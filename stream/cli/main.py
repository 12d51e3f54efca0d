"""The command `freshet`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stream.cli import api, cluster, demo, evaluate, kafka, models, sources, workers
from stream.cli.options import set_log_level
from stream.clients.connection import ConnectionConfigError

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A streaming incremental recommender: events in, refreshed recommendations out, a model that keeps learning. "
    "Start with `freshet demo`.",
)
for command in (
    demo.demo,
    workers.up,
    workers.updater,
    workers.scorer,
    workers.trainer,
    api.api,
    api.token,
    sources.replay,
    sources.simulate,
    evaluate.evaluate,
    kafka.broker,
    cluster.doctor,
    cluster.repartition,
):
    app.command()(command)
app.add_typer(models.model_app, name="model")


@app.callback()
def options(
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    set_log_level(log_level)


def main() -> None:
    """Run the command line; an expected error is one readable line and exit code 2."""
    from kafka.errors import KafkaError

    from ops.local.kafka_install import BrokerError
    from stream.api.config import ApiConfigError
    from stream.cluster.repartition import RepartitionError
    from stream.registry.slots import NoWayBack
    from stream.sources.interaction_log import LogError
    from stream.sources.outbox import SourceError
    from stream.wire.topics import TopicError

    try:
        app()
    except (
        ApiConfigError,
        BrokerError,
        ConnectionConfigError,
        LogError,
        NoWayBack,
        RepartitionError,
        SourceError,
        TopicError,
    ) as error:
        sys.exit(f"freshet: {error}")
    except KafkaError as error:
        sys.exit(
            f"freshet: {type(error).__name__}: {error}. Is Kafka up, is FRESHET_BOOTSTRAP_SERVERS right, and do "
            "the certificates and credentials fit? --log-level debug shows what the brokers answered."
        )
