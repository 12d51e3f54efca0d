"""The processes of the pipeline: `freshet updater`, `scorer`, `trainer`, and `up` for all of them."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from stream.cli.options import (
    Device,
    MetricsHost,
    MetricsPort,
    Partitions,
    Prefix,
    Repartitioning,
    Replication,
    Servers,
    StateDir,
    StatusPort,
    WindowSeconds,
    connect,
    ensured,
    kafka_is_given,
    log_level,
    repartitioning,
    windows_of,
)
from stream.wire.topics import TopicPlan


def updater(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    state_dir: StateDir = Path("freshet-state/updater"),
    metrics_port: MetricsPort = 9101,
    metrics_host: MetricsHost = "127.0.0.1",
    worker: Annotated[str, typer.Option(help="Unique, stable name of this worker; names its transactions.")] = "",
    history_items: Annotated[int, typer.Option(min=1, help="Newest items kept per user.")] = 200,
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between durable checkpoints.")] = 1.0,
    session_seconds: Annotated[float, typer.Option(help="Silence after which its partitions move on.")] = 30.0,
    repartition: Repartitioning = "off",
    window_seconds: WindowSeconds = 900.0,
) -> None:
    """Interactions in, durable histories and refreshes out."""
    from prometheus_client import CollectorRegistry

    from ops.metrics import UpdaterMetrics, serve
    from stream.process import prepare_process
    from stream.updater.config import UpdaterConfig
    from stream.updater.worker import run_updater

    stop = prepare_process(log_level())
    plan = TopicPlan(prefix, partitions, replication_factor)
    config = UpdaterConfig(
        state_dir,
        history_items=history_items,
        checkpoint_seconds=checkpoint_seconds,
        session_seconds=session_seconds,
        worker=worker or socket.gethostname(),
        repartition=repartitioning(repartition),
        windows=windows_of(window_seconds),
    )
    registry = CollectorRegistry()
    metrics = UpdaterMetrics(registry)
    server = serve(registry, metrics_host, metrics_port)
    try:
        run_updater(config, connect(bootstrap_servers), plan, metrics, stop)
    finally:
        server.close()


def scorer(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    state_dir: StateDir = Path("freshet-state/scorer"),
    metrics_port: MetricsPort = 9102,
    metrics_host: MetricsHost = "127.0.0.1",
    device: Device = None,
    list_items: Annotated[int, typer.Option(min=1, help="Length of a recommended list.")] = 20,
    batch_refreshes: Annotated[int, typer.Option(min=1, help="Most refreshes scored together.")] = 512,
    popularity_days: Annotated[float, typer.Option(help="Half-life of popularity, in days of event time.")] = 7.0,
    session_seconds: Annotated[float, typer.Option(help="Silence after which its partitions move on.")] = 30.0,
    window_seconds: WindowSeconds = 900.0,
    judged_per_second: Annotated[
        float, typer.Option(min=0, help="Most users whose last list their new events judge. 0: no verdict on a model.")
    ] = 500.0,
    shadow_per_second: Annotated[
        float, typer.Option(min=0, help="Most users also ranked by the previous model; 0 for none.")
    ] = 20.0,
    figures_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the users, whose lists coverage and its like are taken from.")
    ] = 0.05,
) -> None:
    """Refreshes in, ranked lists out; takes new models over as they are announced."""
    from prometheus_client import CollectorRegistry

    from model.device import pick_device
    from ops.metrics import ScorerMetrics, serve
    from stream.process import end_process, prepare_process
    from stream.scorer.config import ListConfig, ListSignalsConfig, ScorerConfig
    from stream.scorer.worker import run_scorer

    stop = prepare_process(log_level())
    signals = ListSignalsConfig(judged_per_second, shadow_per_second, figures_share, windows=windows_of(window_seconds))
    config = ScorerConfig(
        state_dir,
        batch_refreshes=batch_refreshes,
        session_seconds=session_seconds,
        lists=ListConfig(list_items, int(popularity_days * 86_400_000), signals=signals),
    )
    registry = CollectorRegistry()
    metrics = ScorerMetrics(registry)
    server = serve(registry, metrics_host, metrics_port)
    try:
        plan = TopicPlan(prefix, partitions, replication_factor)
        chosen = pick_device(device, os.environ)
        healthy = run_scorer(config, connect(bootstrap_servers), plan, metrics, chosen, stop)
    finally:
        server.close()
    end_process(0 if healthy else 1)


def trainer(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    state_dir: StateDir = Path("freshet-state/trainer"),
    metrics_port: MetricsPort = 9103,
    metrics_host: MetricsHost = "127.0.0.1",
    device: Device = None,
    artifacts: Annotated[str, typer.Option(help="fsspec URL of the models: a folder, s3://..., gs://...")] = "",
    preset: Annotated[str, typer.Option(help="Of a model from nothing; see `freshet evaluate --help`.")] = "stream",
    round_seconds: Annotated[float, typer.Option(help="Time between fine-tuning rounds.")] = 600.0,
    first_users: Annotated[int, typer.Option(min=1, help="Users the first model waits for.")] = 100,
    first_interactions: Annotated[int, typer.Option(min=1, help="Interactions the first model waits for.")] = 2000,
    first_epochs: Annotated[int, typer.Option(min=1, help="Epochs of a model from nothing.")] = 30,
    first_updates: Annotated[int, typer.Option(min=1, help="Least optimizer steps of it, for few users.")] = 500,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a fine-tuning round.")] = 4,
    updates: Annotated[int, typer.Option(min=1, help="Least optimizer steps of it.")] = 60,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to torch.")] = 0,
    spare_time_only: Annotated[
        bool, typer.Option(help="Give way to whatever wants a core. On a machine that is always full, say no.")
    ] = True,
    window_seconds: WindowSeconds = 900.0,
    many_signals: Annotated[int, typer.Option(min=1, help="So many signals drifting at once are a broken feed.")] = 4,
    user_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of a window's events; a busier user is a flood that freezes training.")
    ] = 0.05,
    canary_share: Annotated[float, typer.Option(min=0, max=0.5, help="Of users who try a new model first.")] = 0.1,
    canary_events: Annotated[int, typer.Option(min=1, help="Answered to them before all get it.")] = 2000,
    canary_seconds: Annotated[float, typer.Option(min=1, help="Longest trial.")] = 1800.0,
) -> None:
    """Fine-tunes the model on fresh histories and announces what passes the gate.

    SIGUSR1 asks for a round now; SIGUSR2 reopens promotions that rollbacks closed.
    """
    from prometheus_client import CollectorRegistry

    from model.config import preset as model_preset
    from ops.metrics import serve
    from ops.monitor.closed_loop import ClosedLoopConfig
    from ops.monitor.data_quality import DataQualityConfig
    from ops.monitor.loop_state import LoopConfig
    from stream.process import end_process, prepare_process
    from stream.trainer.config import TrainerConfig
    from stream.trainer.fine_tune import FineTuneConfig
    from stream.trainer.worker import run_trainer

    stop = prepare_process(log_level())
    config = TrainerConfig(
        state_dir,
        artifacts=artifacts,
        device=device,
        threads=threads,
        spare_time_only=spare_time_only,
        round_seconds=round_seconds,
        first_users=first_users,
        first_interactions=first_interactions,
        canary_share=canary_share,
        canary_events=canary_events,
        canary_seconds=canary_seconds,
        closed_loop=ClosedLoopConfig(
            windows_of(window_seconds),
            data_quality=DataQualityConfig(user_share=user_share),
            loop=LoopConfig(many_signals=many_signals),
        ),
        fine_tune=FineTuneConfig(
            first_epochs=first_epochs,
            first_updates=first_updates,
            epochs=epochs,
            updates=updates,
            model=model_preset(preset),
        ),
    )
    registry = CollectorRegistry()
    server = serve(registry, metrics_host, metrics_port)
    try:
        plan = TopicPlan(prefix, partitions, replication_factor)
        code = run_trainer(config, connect(bootstrap_servers), plan, registry, stop)
    finally:
        server.close()
    end_process(code)


def up(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    state_dir: Annotated[Path, typer.Option(help="Of all processes, the models, and the broker if it is ours.")] = Path(
        "freshet-state"
    ),
    updaters: Annotated[int, typer.Option(min=1, help="Updater processes.")] = 1,
    scorers: Annotated[int, typer.Option(min=1, help="Scorer processes.")] = 1,
    repartition: Repartitioning = "off",
    round_seconds: Annotated[float, typer.Option(help="Time between fine-tuning rounds.")] = 600.0,
    window_seconds: WindowSeconds = 900.0,
    canary_share: Annotated[float, typer.Option(min=0, max=0.5, help="Of users who try a new model first.")] = 0.1,
    status_port: StatusPort = 9100,
) -> None:
    """Updater, scorer and trainer on this machine, kept alive; with a broker of our own when none is given.

    Serves a status page, and starts Prometheus when there is one (`prometheus`, or what FRESHET_PROMETHEUS names).
    """
    from contextlib import nullcontext

    from rich.console import Console

    from ops.local.broker import BrokerConfig, LocalBroker
    from stream.local.dashboard import lookout
    from stream.local.pipeline import Pipeline, PipelineConfig, free_port
    from stream.local.terminal import PrefixedLog
    from stream.process import prepare_process

    stop = prepare_process(log_level(), grace_seconds=None)
    emit = PrefixedLog(Console(stderr=True))
    broker = BrokerConfig(port=free_port(9092), data_dir=state_dir / "kafka")
    own = None if kafka_is_given(bootstrap_servers) else LocalBroker(broker)
    with own or nullcontext():
        servers = own.bootstrap_servers if own else connect(bootstrap_servers).bootstrap_servers
        config = PipelineConfig(
            state_dir,
            servers,
            TopicPlan(prefix, partitions, replication_factor),
            updaters,
            scorers,
            log_level(),
            updater_options=("--repartition", repartitioning(repartition)),
            window_seconds=window_seconds,
            trainer_options=("--round-seconds", str(round_seconds), "--canary-share", str(canary_share)),
        )
        connection, plan = connect(servers), ensured(connect(servers), config.plan)
        pipeline = Pipeline(config, emit)
        emit("freshet", f"Kafka at {servers}, state in {state_dir.absolute()}")
        for name, url in pipeline.metrics_urls.items():
            emit("freshet", f"{name} metrics at {url}")
        urls = pipeline.metrics_urls
        with lookout(urls, connection, plan, state_dir, lambda line: emit("freshet", line), status_port):
            clean = pipeline.run(stop)
    sys.exit(0 if clean else 1)
