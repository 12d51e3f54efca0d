"""The command `freshet`."""

from __future__ import annotations

import math
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from ops.monitor.windows import WindowConfig
from stream.clients.connection import ConnectionRefused, KafkaConnection
from stream.updater.routing import Repartition
from stream.wire.topics import TopicPlan

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A streaming incremental recommender: events in, refreshed recommendations out, a model that keeps learning. "
    "Start with `freshet demo`.",
)
_log_level = "info"

Servers = Annotated[
    str | None,
    typer.Option(envvar="FRESHET_BOOTSTRAP_SERVERS", help="Kafka, host:port[,host:port]. Security: see the README."),
]
Prefix = Annotated[str, typer.Option(help="Before every topic and group name; keeps several Freshets apart.")]
Partitions = Annotated[int, typer.Option(min=1, help="Of interactions, histories, refreshes and recommendations.")]
Replication = Annotated[int, typer.Option(min=1, help="Copies of topics that Freshet creates.")]
StateDir = Annotated[Path, typer.Option(help="Folder of this process's local state. One process, one folder.")]
MetricsPort = Annotated[int, typer.Option(min=0, max=65535, help="Of /metrics; 0 takes a free one.")]
Device = Annotated[str | None, typer.Option(envvar="FRESHET_DEVICE", help="cpu, cuda, cuda:1, ...; CUDA when there.")]
Repartitioning = Annotated[
    str, typer.Option(help="strict: events in another partition than their user's, by murmur2, are sent there; or off.")
]
StatusPort = Annotated[int, typer.Option(min=0, max=65535, help="Of the status page on this machine; 0: any free one.")]
WindowSeconds = Annotated[
    float, typer.Option(min=1, help="Event time that is judged together for drift; alike in all processes.")
]
MetricsHost = Annotated[str, typer.Option(help="Where /metrics listens.")]


@app.callback()
def options(
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    global _log_level
    if log_level.lower() not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"{log_level!r} is none of debug, info, warning, error")
    _log_level = log_level


def _connection(servers: str | None) -> KafkaConnection:
    return KafkaConnection.from_environment(os.environ, servers)


def _ensured(connection: KafkaConnection, plan: TopicPlan) -> TopicPlan:
    from kafka.admin import KafkaAdminClient

    from stream.wire.topics import ensure_topics

    admin = KafkaAdminClient(**connection.kafka_python())
    try:
        ensure_topics(admin, plan)
    finally:
        admin.close()
    return plan


def _repartition(value: str) -> Repartition:
    if value not in get_args(Repartition):
        raise typer.BadParameter(f"{value!r} is none of {', '.join(get_args(Repartition))}", param_hint="--repartition")
    return cast(Repartition, value)


def _windows(seconds: float) -> WindowConfig:
    """A fifteenth of a window waits for late events: a minute of a quarter of an hour."""
    return WindowConfig(int(seconds * 1000), int(seconds * 1000 / 15))


def _name_or_position(name: str | None) -> str | int | None:
    return int(name) if name is not None and name.isdigit() else name


def _given_servers(servers: str | None) -> bool:
    return bool(servers or os.environ.get("FRESHET_BOOTSTRAP_SERVERS") or os.environ.get("FRESHET_KAFKA_CONFIG"))


@app.command()
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
    from stream.updater.worker import UpdaterConfig, run_updater

    stop = prepare_process(_log_level)
    plan = TopicPlan(prefix, partitions, replication_factor)
    config = UpdaterConfig(
        state_dir,
        history_items=history_items,
        checkpoint_seconds=checkpoint_seconds,
        session_seconds=session_seconds,
        worker=worker or socket.gethostname(),
        repartition=_repartition(repartition),
        windows=_windows(window_seconds),
    )
    registry = CollectorRegistry()
    metrics = UpdaterMetrics(registry)
    server = serve(registry, metrics_host, metrics_port)
    try:
        run_updater(config, _connection(bootstrap_servers), plan, metrics, stop)
    finally:
        server.close()


@app.command()
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
    from stream.scorer.list_signals import ScorerWatchConfig
    from stream.scorer.serving import ServingConfig
    from stream.scorer.worker import ScorerConfig, run_scorer

    stop = prepare_process(_log_level)
    watch = ScorerWatchConfig(judged_per_second, shadow_per_second, figures_share, windows=_windows(window_seconds))
    serving = ServingConfig(list_items, int(popularity_days * 86_400_000), watch=watch)
    config = ScorerConfig(
        state_dir,
        batch_refreshes=batch_refreshes,
        session_seconds=session_seconds,
        serving=serving,
    )
    registry = CollectorRegistry()
    metrics = ScorerMetrics(registry)
    server = serve(registry, metrics_host, metrics_port)
    try:
        plan = TopicPlan(prefix, partitions, replication_factor)
        chosen = pick_device(device, os.environ)
        healthy = run_scorer(config, _connection(bootstrap_servers), plan, metrics, chosen, stop)
    finally:
        server.close()
    end_process(0 if healthy else 1)


@app.command()
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
    from ops.monitor.closed_loop import WatchConfig
    from ops.monitor.data_quality import DataQualityConfig
    from ops.monitor.decisions import LoopConfig
    from stream.process import end_process, prepare_process
    from stream.trainer.fine_tune import FineTuneConfig
    from stream.trainer.worker import TrainerConfig, run_trainer

    stop = prepare_process(_log_level)
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
        watch=WatchConfig(
            _windows(window_seconds),
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
        code = run_trainer(config, _connection(bootstrap_servers), plan, registry, stop)
    finally:
        server.close()
    end_process(code)


@app.command()
def demo(
    log: Annotated[
        Path | None, typer.Option(help="A real log to replay (MovieLens, CSV, parquet, ...); else a simulated world.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long events flow.")] = 150.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Simulated events per second.")] = 200.0,
    min_rating: Annotated[float | None, typer.Option(help="Least rating of a log's events.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of the simulated world.")] = 0,
) -> None:
    """Everything at once: Kafka, all processes and a stream of events, watched live; ends by itself with a summary."""
    from rich.console import Console

    from stream.demo.run import Demo, DemoConfig, print_report
    from stream.process import prepare_process

    stop = prepare_process("warning" if _log_level == "info" else _log_level, grace_seconds=None)
    config = DemoConfig(log, min_rating, seconds, rate, seed=seed)
    report = Demo(config, Console(), _log_level).run(stop)
    print_report(report, config, print)
    sys.exit(1 if report.problems() else 0)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="MovieLens files, CSV, TSV, parquet or JSON lines; .gz too.")],
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    speed: Annotated[str, typer.Option(help="Multiple of real time, or max.")] = "max",
    min_rating: Annotated[float | None, typer.Option(help="Leave out events rated below this.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user, by name or position from 0.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column of the time.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None,
    weight: Annotated[str | None, typer.Option(help="Column of the strength.")] = None,
    event: Annotated[str | None, typer.Option(help="Column of the event's kind.")] = None,
    time_unit: Annotated[str | None, typer.Option(help="s, ms, us or ns; judged by size when not given.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between columns; found when not given.")] = None,
    progress_dir: Annotated[Path, typer.Option(help="Where it is noted what was delivered.")] = Path(
        "freshet-state/replay"
    ),
    restart: Annotated[bool, typer.Option("--restart", help="From the beginning, whatever was delivered.")] = False,
) -> None:
    """Send a log to `interactions` in time order; an interrupted replay continues where it stopped."""
    from stream.process import prepare_process
    from stream.sources.interaction_log import Columns
    from stream.sources.replay import replay_file

    stop = prepare_process(_log_level, grace_seconds=None)
    try:
        pace = math.inf if speed == "max" else float(speed)
    except ValueError:
        raise typer.BadParameter(f"{speed!r} is neither a number nor max", param_hint="--speed") from None
    columns = Columns(
        user=_name_or_position(user),
        item=_name_or_position(item),
        timestamp=_name_or_position(timestamp),
        rating=_name_or_position(rating),
        weight=_name_or_position(weight),
        event=_name_or_position(event),
        time_unit=time_unit,
        delimiter=delimiter,
    )
    connection = _connection(bootstrap_servers)
    plan = _ensured(connection, TopicPlan(prefix, partitions, replication_factor))
    result = replay_file(
        file,
        connection,
        plan.interactions,
        stop,
        progress_dir=progress_dir,
        columns=columns,
        min_rating=min_rating,
        speed=pace,
        restart=restart,
    )
    sys.exit(0 if result.complete else 130)


@app.command()
def simulate(
    bootstrap_servers: Servers = None,
    prefix: Prefix = "",
    partitions: Partitions = 4,
    replication_factor: Replication = 1,
    rate: Annotated[float, typer.Option(min=0.001, help="Events per second.")] = 100.0,
    events: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    users: Annotated[int, typer.Option(min=1)] = 2000,
    items: Annotated[int, typer.Option(min=12)] = 500,
    broken: Annotated[float, typer.Option(min=0, max=0.99, help="Share of broken records.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same world.")] = 0,
) -> None:
    """Send events of a simulated world, with drifting tastes, launches and fashions, to `interactions`."""
    import numpy as np
    from rich.console import Console

    from stream.process import prepare_process
    from stream.sources.outbox import InteractionSink
    from stream.sources.simulate import World, WorldConfig
    from stream.sources.simulate import simulate as run

    stop = prepare_process(_log_level, grace_seconds=None)
    connection = _connection(bootstrap_servers)
    plan = _ensured(connection, TopicPlan(prefix, partitions, replication_factor))
    world = World(WorldConfig(users=users, items=items), np.random.default_rng(seed))
    console = Console(stderr=True)
    with InteractionSink(connection, plan.interactions) as sink, console.status("") as status:
        result = run(
            world,
            sink,
            stop,
            rate=rate,
            events=events,
            seconds=seconds,
            broken=broken,
            on_delivered=lambda count: status.update(f"{count:,} records delivered"),
        )
    console.print(
        f"{result.delivered:,} records delivered, {result.broken:,} of them broken, in {result.seconds:.1f} s"
    )


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="A log, or MovieLens-1M split by time (.npz).")],
    protocol: Annotated[str, typer.Option(help="paper: as the published tables; honest: for claims.")] = "honest",
    model: Annotated[list[str] | None, typer.Option(help="Which; repeat for several. A usual set when none.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model that depends on chance.")] = 5,
    against: Annotated[str, typer.Option(help="The row that the others are compared with.")] = "ease-recent",
    device: Device = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the figures here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Also draw NDCG@20 here.")] = None,
) -> None:
    """Train models on a log and compare them: recall, NDCG, coverage, Gini, novelty, speed, with paired intervals."""
    from model.device import pick_device
    from stream.cli.evaluate import evaluate as run
    from stream.local.terminal import output

    try:
        run(
            file,
            output(),
            protocol=protocol,  # type: ignore[arg-type]  # refused by name below
            models=model or None,
            seeds=seeds,
            against=against,
            device=pick_device(device, os.environ),
            csv=csv,
            png=png,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


model_app = typer.Typer(no_args_is_help=True, help="Look at the models in service, or go back to the previous one.")
app.add_typer(model_app, name="model")


@model_app.command("list")
def model_list(bootstrap_servers: Servers = None, prefix: Prefix = "") -> None:
    """Which model is in which slot."""
    from datetime import UTC, datetime

    from rich.table import Table

    from stream.local.terminal import output
    from stream.registry.slots import read_slots

    table = Table("slot", "version", "parent", "items", "data until (UTC)", "metrics", "address")
    for slot, a in read_slots(_connection(bootstrap_servers), TopicPlan(prefix).models).items():
        until = f"{datetime.fromtimestamp(a.data_until / 1000, UTC):%Y-%m-%d %H:%M:%S}"
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in a.metrics.items())
        table.add_row(slot, a.version, a.parent, str(a.items), until, metrics, a.address)
    output().print(table)


@model_app.command("rollback")
def model_rollback(bootstrap_servers: Servers = None, prefix: Prefix = "") -> None:
    """Put the previous model back into service; the one taken back is never a parent again."""
    from stream.registry.slots import announce_rollback

    back, gone = announce_rollback(_connection(bootstrap_servers), TopicPlan(prefix).models)
    print(f"live is {back.version} again; {gone.version} is retired")


@app.command()
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

    stop = prepare_process(_log_level, grace_seconds=None)
    emit = PrefixedLog(Console(stderr=True))
    broker = BrokerConfig(port=free_port(9092), data_dir=state_dir / "kafka")
    own = None if _given_servers(bootstrap_servers) else LocalBroker(broker)
    with own or nullcontext():
        servers = own.bootstrap_servers if own else _connection(bootstrap_servers).bootstrap_servers
        config = PipelineConfig(
            state_dir,
            servers,
            TopicPlan(prefix, partitions, replication_factor),
            updaters,
            scorers,
            _log_level,
            updater_options=("--repartition", _repartition(repartition)),
            window_seconds=window_seconds,
            trainer_options=("--round-seconds", str(round_seconds), "--canary-share", str(canary_share)),
        )
        connection, plan = _connection(servers), _ensured(_connection(servers), config.plan)
        pipeline = Pipeline(config, emit)
        emit("freshet", f"Kafka at {servers}, state in {state_dir.absolute()}")
        for name, url in pipeline.metrics_urls.items():
            emit("freshet", f"{name} metrics at {url}")
        urls = pipeline.metrics_urls
        with lookout(urls, connection, plan, state_dir, lambda line: emit("freshet", line), status_port):
            clean = pipeline.run(stop)
    sys.exit(0 if clean else 1)


@app.command()
def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9092,
    data_dir: Annotated[Path | None, typer.Option(help="Kept between runs; else temporary.")] = None,
) -> None:
    """A real single-node Apache Kafka on this machine (needs Java 17 and, the first time, Maven)."""
    from ops.local.broker import BrokerConfig, run_until_signalled
    from stream.process import prepare_process

    stop = prepare_process(_log_level, grace_seconds=None)
    sys.exit(run_until_signalled(BrokerConfig(port=port, data_dir=data_dir), stop))


def main() -> None:
    """Run the command line; an expected error is one readable line and exit code 2."""
    from kafka.errors import KafkaError

    from ops.local.broker import BrokerError
    from stream.registry.slots import NoWayBack
    from stream.sources.interaction_log import LogError
    from stream.sources.outbox import SourceError
    from stream.wire.topics import TopicError

    try:
        app()
    except (ConnectionRefused, BrokerError, TopicError, LogError, SourceError, NoWayBack) as error:
        sys.exit(f"freshet: {error}")
    except KafkaError as error:
        sys.exit(
            f"freshet: {type(error).__name__}: {error}. Is Kafka up, is FRESHET_BOOTSTRAP_SERVERS right, and do "
            "the certificates and credentials fit? --log-level debug shows what the brokers answered."
        )
