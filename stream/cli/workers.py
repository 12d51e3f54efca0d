"""The processes of the pipeline: `freshet updater`, `scorer`, `trainer`, and `up` for all of them on one machine."""

from __future__ import annotations

import sys
from contextlib import nullcontext

from stream.cli.kafka_settings import kafka_connection, kafka_environment
from stream.cli.options import TOPICS, Group, Renamed, command
from stream.cli.settings import Settings
from stream.cli.starting import own_folder, served_pages, started, topic_plan, topics_made

__all__ = ["scorer", "trainer", "up", "updater"]

_WINDOW = Renamed("windows.window_ms", "--window-seconds", 1000)
_SHARED = ("process", "topics", "windows", "limits")  # sections


def _metrics(process: str) -> Group:
    return Group(
        "Metrics", Renamed("metrics.host", "--metrics-host"), Renamed(f"metrics.{process}_port", "--metrics-port")
    )


@command(
    "updater",
    TOPICS,
    Group(
        "Updater",
        "updater.state_dir",
        "updater.worker",
        "updater.history_items",
        "updater.checkpoint_seconds",
        "updater.session_seconds",
        "updater.repartition",
        _WINDOW,
    ),
    _metrics("updater"),
    sections=(*_SHARED, "metrics", "updater"),
)
def updater(settings: Settings) -> None:
    """Interactions in, durable histories and refreshes out."""
    from ops.metrics import UpdaterMetrics
    from stream.updater.config import UpdaterConfig
    from stream.updater.worker import run_updater

    stop = started(settings)
    own_folder(settings["updater.state_dir"])
    connection, plan = kafka_connection(settings), topic_plan(settings)
    with served_pages(settings, "updater") as (registry, health):
        run_updater(settings.read(UpdaterConfig), connection, plan, UpdaterMetrics(registry), stop, health)


@command(
    "scorer",
    TOPICS,
    Group(
        "Scorer",
        "scorer.state_dir",
        "scorer.worker",
        "scorer.device",
        "scorer.lists.list_items",
        "scorer.batch_refreshes",
        Renamed("scorer.lists.popularity_half_life_ms", "--popularity-days", 86_400_000),
        "scorer.session_seconds",
    ),
    Group(
        "What is watched",
        _WINDOW,
        "scorer.lists.signals.judged_per_second",
        "scorer.lists.signals.shadow_per_second",
        "scorer.lists.signals.figures_share",
    ),
    _metrics("scorer"),
    sections=(*_SHARED, "metrics", "scorer"),
)
def scorer(settings: Settings) -> None:
    """Refreshes in, ranked lists out; takes new models over as they are announced."""
    from model.device import pick_device
    from ops.metrics import ScorerMetrics
    from stream.process import end_process
    from stream.scorer.config import ScorerConfig
    from stream.scorer.worker import run_scorer

    stop = started(settings)
    own_folder(settings["scorer.state_dir"])
    config, connection, plan = settings.read(ScorerConfig), kafka_connection(settings), topic_plan(settings)
    device = pick_device(config.device, settings.environment)
    with served_pages(settings, "scorer") as (registry, health):
        healthy = run_scorer(config, connection, plan, ScorerMetrics(registry), device, stop, health)
    end_process(0 if healthy else 1)


@command(
    "trainer",
    TOPICS,
    Group(
        "Trainer",
        "trainer.state_dir",
        "trainer.artifacts",
        "trainer.device",
        "trainer.threads",
        "trainer.spare_time_only",
    ),
    Group(
        "Rounds",
        "trainer.round_seconds",
        "trainer.first_users",
        "trainer.first_interactions",
        "model.preset",
        "trainer.fine_tune.first_epochs",
        "trainer.fine_tune.first_updates",
        "trainer.fine_tune.epochs",
        "trainer.fine_tune.updates",
    ),
    Group(
        "Before a model serves everybody",
        "trainer.canary_share",
        "trainer.canary_events",
        "trainer.canary_seconds",
        _WINDOW,
        "trainer.closed_loop.loop.many_signals",
        "trainer.closed_loop.data_quality.user_share",
    ),
    _metrics("trainer"),
    sections=(*_SHARED, "metrics", "model", "trainer"),
)
def trainer(settings: Settings) -> None:
    """Fine-tunes the model on fresh histories and announces what passes the gate.

    SIGUSR1 asks for a round now, SIGHUP for one that learns from nothing; SIGUSR2 reopens promotions that rollbacks
    closed.
    """
    from stream.process import end_process
    from stream.trainer.config import TrainerConfig
    from stream.trainer.worker import run_trainer

    stop = started(settings)
    own_folder(settings["trainer.state_dir"])
    config, connection, plan = settings.read(TrainerConfig), kafka_connection(settings), topic_plan(settings)
    with served_pages(settings, "trainer") as (registry, health):
        code = run_trainer(config, connection, plan, registry, stop, health)
    end_process(code)


@command(
    "up",
    TOPICS,
    Group(
        "This machine", "up.state_dir", "up.updaters", "up.scorers", "up.apis", "up.session_seconds", "up.status_port"
    ),
    Group("Processes", "updater.repartition", "trainer.round_seconds", "trainer.canary_share", _WINDOW),
    sections=(*_SHARED, "updater", "up"),
)
def up(settings: Settings) -> None:
    """Updater, scorer, trainer and API on this machine, kept alive; with a Kafka of its own when none is given.

    Serves a status page, and starts Prometheus when there is one (`prometheus`, or what FRESHET_PROMETHEUS names).
    """
    from rich.console import Console

    from ops.local.broker import BrokerConfig, LocalBroker
    from stream.clients.connection import KafkaConnection
    from stream.local.dashboard import lookout
    from stream.local.pipeline import Pipeline, PipelineConfig, free_port
    from stream.local.terminal import PrefixedLog
    from stream.process import REFUSED

    stop = started(settings, grace_seconds=None)
    emit = PrefixedLog(Console(stderr=True))
    config, folder = settings.read(PipelineConfig), own_folder(settings["up.state_dir"])
    environment = kafka_environment(settings)
    broker = BrokerConfig(port=free_port(9092), data_dir=folder / "kafka")
    own = None if KafkaConnection.is_given(environment) else LocalBroker(broker)
    with own or nullcontext():
        connection = KafkaConnection.from_environment(environment, own.bootstrap_servers if own else None)
        servers, plan = connection.bootstrap_servers, topics_made(connection, topic_plan(settings))
        pipeline = Pipeline(config, servers, plan, emit, settings.forwarded(), _sessions(settings))
        emit("freshet", f"Kafka at {servers}, state in {folder.absolute()}")
        for name, url in pipeline.metrics_urls.items():
            emit("freshet", f"{name} metrics at {url}")
        for url in pipeline.api_urls:
            emit("freshet", f"lists over HTTP: curl {url}/v1/users/ann/recommendations")
        with lookout(
            pipeline.metrics_urls, connection, plan, folder, lambda line: emit("freshet", line), config.status_port
        ):
            clean = pipeline.run(stop)
    if pipeline.refused is not None:
        emit("freshet", f"ended, because {pipeline.refused} refuses to work: its last line says what to do")
        sys.exit(REFUSED)
    sys.exit(0 if clean else 1)


def _sessions(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Options for workers whose own session time is set; the pipeline uses a shorter one for all others."""
    kinds = [kind for kind in ("updater", "scorer") if settings.is_given(f"{kind}.session_seconds")]
    return {kind: ("--session-seconds", str(settings[f"{kind}.session_seconds"].value)) for kind in kinds}
