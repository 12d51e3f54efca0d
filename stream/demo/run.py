"""`freshet demo`: runs the whole pipeline on this machine, measures it from outside, and prints a report at the end."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from kafka.admin import KafkaAdminClient
from rich.console import Console
from rich.live import Live

from ops.local.broker import LocalBroker
from state.history import Entry
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import (
    changelog_histories,
    differences,
    records_taken,
    records_written,
    reference_merge,
    reference_of_topic,
    rejected_records,
    stored_histories,
)
from stream.demo.config import DemoConfig
from stream.demo.latency_probe import Observer
from stream.demo.report import EXPECTED_MODELS, DemoReport
from stream.demo.scrape import scrape
from stream.demo.screen import Screen
from stream.local.dashboard import lookout
from stream.local.pipeline import Pipeline, PipelineConfig
from stream.local.terminal import PrefixedLog
from stream.sources.log.reader import InteractionLog
from stream.sources.outbox import InteractionSink, Outbox, Pacer, as_record
from stream.sources.replay import describe, read_shown
from stream.sources.simulate import World, WorldConfig, broken_record
from stream.wire.records import Interaction
from stream.wire.topics import UPDATER_GROUP, TopicPlan, ensure_topics

__all__ = ["Demo", "event_numbers"]

log = logging.getLogger(__name__)

_HISTORY_ITEMS = 200
_SETTLE_SECONDS = 30.0  # longest wait for the last events' lists
_START_SECONDS = 90.0
_LONGER_SECONDS = 150.0  # for how long simulated events continue if the models are late
_WINDOW_SECONDS = 10.0


class Demo:
    """One run of a demo: `run` returns the report; its `stop` ends the run early but in order."""

    def __init__(
        self, config: DemoConfig, console: Console, environment: Mapping[str, str], settings: Sequence[str] = ()
    ) -> None:
        self._config, self._console, self._environment, self._settings = config, console, environment, settings
        self._report = DemoReport()
        self._log: InteractionLog | None = None
        self._events: list[tuple[str, Entry]] = []  # events that were sent and must be in the histories
        self._screen = Screen(self._report)
        self._source_error: Exception | None = None

    def run(self, stop: threading.Event) -> DemoReport:
        with ExitStack() as stack:
            self._open_log(stack, stop)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="freshet-demo-")))
            connection = self._broker(stack)
            plan = self._plan()
            ensure_topics(connection, plan)
            admin = stack.enter_context(admin_client(connection))
            emit = PrefixedLog(self._console, printing=not self._console.is_terminal)
            pipeline = self._pipeline(folder, connection, plan, emit)
            ended = threading.Event()
            runner = threading.Thread(target=self._supervise, args=(pipeline, ended), name="pipeline")
            runner.start()
            say = self._console.print
            stack.enter_context(lookout(pipeline.metrics_urls, connection, plan, folder, say))
            for url in pipeline.api_urls:
                say(f"lists over HTTP: curl {url}/v1/users/u1/recommendations", soft_wrap=True)
            observer = Observer(connection, plan.recommendations)
            stack.callback(observer.close)
            try:
                self._watch(connection, admin, plan, pipeline, observer, emit, stop)
            finally:
                ended.set()
                runner.join()
            self._audit(connection, admin, plan, folder)
            self._report.restarts = sum(child.restarts for child in pipeline.supervisor.children.values())
        return self._report

    def _open_log(self, stack: ExitStack, stop: threading.Event) -> None:
        """Read and print the log first, so that an unusable log is refused before anything else starts."""
        if self._config.log is not None:
            options = self._config.options
            self._log = stack.enter_context(
                read_shown(self._config.log, options, self._console, stop, usual_ratings=True)
            )
            describe(self._log, self._console)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _broker(self, stack: ExitStack) -> KafkaConnection:
        if self._kafka_is_given:
            return KafkaConnection.from_environment(self._environment)
        with self._console.status("starting Apache Kafka (the first time its jars are downloaded)"):
            broker = stack.enter_context(LocalBroker())
        return KafkaConnection(broker.bootstrap_servers)

    @property
    def _kafka_is_given(self) -> bool:
        return KafkaConnection.is_given(self._environment)

    def _plan(self) -> TopicPlan:
        """On an existing Kafka the demo uses only topics of its own, with a prefix."""
        return TopicPlan(prefix=f"demo-{os.getpid()}-" if self._kafka_is_given else "")

    def _pipeline(self, folder: Path, connection: KafkaConnection, plan: TopicPlan, emit: PrefixedLog) -> Pipeline:
        window = ("--window-seconds", str(self._window_seconds()))
        trainer = (
            # All signals drift in a world that begins without events, and a canary takes longer than the demo.
            *("--many-signals", "9", "--canary-share", "0"),
            # A user who enters many old ratings at once sends a large part of the events of ten seconds.
            *("--user-share", "0.5"),
            *("--round-seconds", str(self._config.round_seconds), "--threads", "1"),
            *("--first-users", "50", "--first-interactions", "1500", "--first-epochs", "20"),
            *("--first-updates", "200"),
        )
        return Pipeline(
            PipelineConfig(folder),
            connection.bootstrap_servers,
            plan,
            emit,
            self._settings,
            {"updater": window, "scorer": window, "trainer": (*window, *trainer)},
            usual_ports=False,
        )

    def _window_seconds(self) -> float:
        """Event time of about ten seconds of the demo: long enough for the statistics, short enough for the demo."""
        if self._log is None:
            return _WINDOW_SECONDS
        account = self._log.account
        span = (account.last_ms - account.first_ms) / 1000
        return max(_WINDOW_SECONDS, span * _WINDOW_SECONDS / self._config.seconds)

    def _supervise(self, pipeline: Pipeline, ended: threading.Event) -> None:
        self._report.clean = pipeline.run(ended)

    def _watch(
        self,
        connection: KafkaConnection,
        admin: KafkaAdminClient,
        plan: TopicPlan,
        pipeline: Pipeline,
        observer: Observer,
        emit: PrefixedLog,
        stop: threading.Event,
    ) -> None:
        began = time.monotonic()
        self._wait_until_up(pipeline, stop)
        source = threading.Thread(target=self._send, args=(connection, plan, observer, stop), name="source")
        source.start()
        settle_until = math.inf
        live = Live(console=self._console, refresh_per_second=4, transient=True)
        with live if self._console.is_terminal else _NoLive():
            said = began
            while True:
                time.sleep(0.5)
                self._look(pipeline, observer)
                now = time.monotonic()
                if self._console.is_terminal:
                    live.update(self._screen.view(observer, emit))
                elif now - said >= 10:
                    said = now
                    emit("demo", self._screen.line(observer))
                if source.is_alive():
                    continue
                settle_until = min(settle_until, now + _SETTLE_SECONDS)
                done = not observer.unanswered and self._taken(admin, plan) >= self._report.sent
                if done or now > settle_until:
                    break
        self._look(pipeline, observer)
        if self._source_error is not None:
            raise self._source_error

    def _wait_until_up(self, pipeline: Pipeline, stop: threading.Event) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with self._console.status("starting updater, scorer and trainer"):
            while time.monotonic() < deadline and not stop.is_set():
                seen = scrape(pipeline.metrics_urls)
                if not seen.down and not seen.waiting():
                    return
                time.sleep(0.3)

    # -- the source ----------------------------------------------------------------------------------------------------

    def _send(self, connection: KafkaConnection, plan: TopicPlan, observer: Observer, stop: threading.Event) -> None:
        try:
            with InteractionSink(connection, plan.interactions) as sink:
                outbox = Outbox(sink)
                for interaction, broken in self._paced(stop):
                    if interaction is not None:
                        entry = Entry(interaction.timestamp, interaction.item, interaction.weight, interaction.event)
                        self._events.append((interaction.user, entry))
                        observer.sent(interaction.user, interaction.timestamp)
                        outbox.send(*as_record(interaction))
                    elif broken is not None:
                        outbox.send(*broken)
                    self._report.sent += 1
                outbox.drain()
        except Exception as error:  # raised again by `_watch`  # noqa: BLE001
            self._source_error = error

    def _paced(self, stop: threading.Event) -> Iterator[tuple[Interaction | None, Any]]:
        config = self._config
        if self._log is not None:
            rate = len(self._log) / config.seconds
            events: Iterator[Any] = ((interaction, None) for interaction in self._log.interactions())
            self._screen.total = len(self._log)
        else:
            rate = config.events_per_second
            self._screen.total = int(rate * config.seconds)
            events = self._simulated(self._screen.total, int(rate * _LONGER_SECONDS))
        pacer = Pacer(stop)
        for number, event in enumerate(events):
            if not pacer.wait(number / rate, lambda: None):
                return
            yield event

    def _simulated(self, count: int, more: int) -> Iterator[tuple[Interaction | None, Any]]:
        rng = np.random.default_rng(self._config.seed)
        world = World(WorldConfig(launch_events=count // 2, shifts=(count // 2,)), rng)

        def enough() -> bool:
            return len(self._report.models) >= EXPECTED_MODELS

        def longer() -> None:
            self._screen.total = count + more
            self._console.print(
                f"{EXPECTED_MODELS} models are not live yet: the trainer runs while nothing else wants the core, and "
                f"this machine is busy. Events go on for up to {_LONGER_SECONDS:.0f} s",
                soft_wrap=True,
            )

        for _ in event_numbers(count, more, enough, longer):
            now_ms = int(time.time() * 1000)
            if rng.random() < self._config.broken_share:
                yield None, broken_record(rng, now_ms)
            else:
                event = world.event()
                yield Interaction(f"u{event.user}", f"i{event.item}", now_ms, 1.0, "view"), None

    # -- looking -------------------------------------------------------------------------------------------------------

    def _look(self, pipeline: Pipeline, observer: Observer) -> None:
        seen = scrape(pipeline.metrics_urls)
        # A restarted process counts from zero and reads some events again: the report at the end counts in Kafka.
        report = self._report
        report.accepted = int(seen.total("freshet_events_applied_total"))
        report.dead_letters = int(seen.total("freshet_dead_letters_total"))
        report.lists, report.unanswered = observer.lists, observer.unanswered
        report.models = list(observer.models)
        report.p50, report.p99 = observer.quantiles((0.5, 0.99))
        name = "freshet_prequential_rank"
        hits, scored = seen.share_at_most(name, "10.0", variant="control", slot="live")
        popular, _ = seen.share_at_most(name, "10.0", variant="popularity", slot="live")
        report.model_hits, report.scored, report.popularity_hits = int(hits), int(scored), int(popular)
        self._screen.note()

    # -- the account ---------------------------------------------------------------------------------------------------

    def _taken(self, admin: KafkaAdminClient, plan: TopicPlan) -> int:
        return records_taken(admin, f"{plan.prefix}{UPDATER_GROUP}", plan.interactions)

    def _audit(self, connection: KafkaConnection, admin: KafkaAdminClient, plan: TopicPlan, folder: Path) -> None:
        report = self._report
        report.rejected = dict(rejected_records(connection, plan.dead_letters))
        report.dead_letters = sum(report.rejected.values())
        report.accepted = self._taken(admin, plan) - report.dead_letters
        report.elsewhere = records_written(admin, plan.interactions) - report.sent
        expected = (
            reference_of_topic(connection, plan.interactions, _HISTORY_ITEMS)
            if report.elsewhere
            else reference_merge(self._events, _HISTORY_ITEMS)
        )
        stored = stored_histories(admin, plan.histories, [folder / "updater" / "histories"])
        report.users = len(expected)
        report.differences = differences(stored, expected)
        report.differences += differences(changelog_histories(connection, plan.histories), expected)


def event_numbers(count: int, more: int, enough: Callable[[], bool], longer: Callable[[], None]) -> Iterator[int]:
    """0 .. count - 1, and then up to `more` others until `enough` is true; `longer` is called before these."""
    yield from range(count)
    if enough():
        return
    longer()
    for number in range(count, count + more):
        if enough():
            return
        yield number


class _NoLive:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
