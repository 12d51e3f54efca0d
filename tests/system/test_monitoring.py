"""The running pipeline is watched: every metric is there, windows reach the trainer, a broken feed is told and ends."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from ops.instruments import Metric, declared
from ops.local.prometheus import RULES, LocalPrometheus, find_prometheus
from ops.local.status import StatusPage
from ops.metrics import ApiMetrics, ScorerMetrics, TrainerMetrics, UpdaterMetrics
from stream.clients.connection import KafkaConnection
from stream.demo.scrape import scrape
from stream.local.dashboard import jobs, lookout
from stream.local.pipeline import Pipeline, PipelineConfig, free_port
from stream.sources.outbox import as_record
from stream.sources.simulate import World, WorldConfig
from stream.wire.records import Interaction
from stream.wire.topics import TopicPlan, ensure_topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]

PROMETHEUS = find_prometheus(os.environ)
CHROMIUM = shutil.which(os.environ.get("FRESHET_CHROMIUM") or "chromium")
PARTITIONS = 12
WINDOW_MS, WINDOW_EVENTS = 10_000, 800
METRICS = {"updater": UpdaterMetrics, "scorer": ScorerMetrics, "trainer": TrainerMetrics, "api": ApiMetrics}
TRAINER = (
    *("--round-seconds", "5", "--first-users", "20", "--first-interactions", "200", "--many-signals", "9"),
    *("--first-epochs", "10", "--first-updates", "100", "--updates", "5", "--threads", "1", "--canary-share", "0"),
)


class Watched:
    """A pipeline with its status page, and a source whose events are `WINDOW_EVENTS` to a window of event time."""

    def __init__(self, folder: Path, kafka: KafkaConnection, plan: TopicPlan) -> None:
        self.lines: list[str] = []
        self.pipeline = Pipeline(
            PipelineConfig(folder),
            kafka.bootstrap_servers,
            plan,
            lambda name, line: self.lines.append(f"{name} | {line}"),
            ("--set", f"windows.window_ms={WINDOW_MS}"),
            {"trainer": TRAINER},
            usual_ports=False,
        )
        self.page: StatusPage
        self._producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5)
        self._topic = plan.interactions
        self._world = World(WorldConfig(users=300, items=120, launch_events=1000, shifts=()), np.random.default_rng(0))
        self._time_ms = int(time.time() * 1000) - 86_400_000

    def send(self, windows: int, broken: Callable[[int, Interaction], list[Interaction]] = lambda n, e: [e]) -> None:
        """So many windows of events, each as `broken` makes it of a sound one; returns once the updater has them."""
        for _ in range(windows):
            before, sent = self.taken(), 0
            for number in range(WINDOW_EVENTS):
                event = self._world.event()
                self._time_ms += WINDOW_MS // WINDOW_EVENTS
                sound = Interaction(f"u{event.user}", f"i{event.item}", self._time_ms, 1.0, "view")
                for interaction in broken(number, sound):
                    key, value = as_record(interaction)
                    self._producer.send(self._topic, value, key=key)
                    sent += 1
            self._producer.flush()

            def taken_in(due: float = before + sent) -> bool:
                return self.taken() >= due

            self.until(taken_in, "taking the events in")

    def taken(self) -> float:
        return self.total("freshet_events_applied_total") + self.total("freshet_dead_letters_total")

    def total(self, name: str, **labels: str) -> float:
        return scrape(self.pipeline.metrics_urls).total(name, **labels)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen:\n" + "\n".join(self.lines[-40:])
            time.sleep(0.2)

    def until_trained(self) -> None:
        """A round was fitted, so nothing of before is refused any more: a refusal is counted once until the next
        round. On a busy machine a window may be judged before a scorer has counted it, and freeze training."""
        rounds = self.total("freshet_training_round_seconds_count", stage="train")
        for _ in range(8):
            self.send(1)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                if self.total("freshet_training_round_seconds_count", stage="train") > rounds:
                    return
                time.sleep(0.2)
        raise AssertionError("no round in 8 sound windows:\n" + "\n".join(self.lines[-40:]))

    def ready(self) -> bool:
        seen = scrape(self.pipeline.metrics_urls)
        return not seen.down and not seen.waiting()


@pytest.fixture(scope="module")
def watched(kafka: KafkaConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    plan = TopicPlan(prefix=f"t{uuid.uuid4().hex[:10]}-", partitions=PARTITIONS)
    ensure_topics(kafka, plan)
    watched, stop = Watched(folder, kafka, plan), threading.Event()
    thread = threading.Thread(target=watched.pipeline.run, args=(stop,))
    thread.start()
    try:
        watched.until(watched.ready, "starting", 120)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FRESHET_PROMETHEUS", "none to start here")
            with lookout(watched.pipeline.metrics_urls, kafka, plan, folder, watched.lines.append, 0) as page:
                watched.page = page
                watched.send(6)
                watched.until(lambda: watched.total("freshet_model_promotions_total") >= 1, "the first model")
                loaded = partial(watched.total, "freshet_model_loaded_timestamp_seconds", slot="live")
                watched.until(lambda: loaded() > 0, "taking it over")
                watched.send(8)
                watched.until_trained()
                yield watched
    finally:
        stop.set()
        thread.join(30)


def always(process: type) -> list[Metric]:
    """The metrics that a pipeline without a pilot has; `test_pilots` finds the others."""
    return [metric for metric in declared(process) if "pilot" not in metric.labels]


def families(url: str) -> dict[str, list]:
    with urllib.request.urlopen(url, timeout=5) as page:
        return {f.name: f.samples for f in text_string_to_metric_families(page.read().decode())}


def test_every_metric_of_the_catalogue_is_there_and_there_are_few_series(watched: Watched) -> None:
    watched.until(lambda: watched.total("freshet_consumer_lag_polled_timestamp_seconds") > 0, "a poll of the lag")
    for process, url in watched.pipeline.metrics_urls.items():
        found = families(url)
        expected = {metric.exported.removesuffix("_total") for metric in always(METRICS[process])}
        assert expected - {name for name, samples in found.items() if samples} == set()
        assert sum(map(len, found.values())) < 500


def test_what_happened_is_on_the_metrics(watched: Watched) -> None:
    """Those that any running pipeline moves: none of them is only declared."""
    moved = (
        *("events_applied_total", "event_to_history_seconds_count", "stream_watermark_timestamp_seconds"),
        *("history_write_seconds_count", "history_items_count", "inter_arrival_seconds_count", "user_events_total"),
        *("item_events_total", "checkpoints_total", "rebalances_total", "consumer_committed_offset"),
        *("recommendations_published_total", "event_to_recommendation_seconds_count", "scoring_seconds_count"),
        *("scoring_batch_users_count", "top_score_count", "model_info", "model_data_timestamp_seconds"),
        *("prequential_rank_count", "prequential_events_total"),
        *("catalogue_coverage_ratio", "recommendation_gini_ratio", "recommendation_popularity_ratio"),
        *("recommendation_novelty", "intra_list_distance_ratio", "list_churn_ratio"),
        *("training_rounds_total", "training_round_seconds_count", "training_examples", "training_loss_ratio"),
        *("training_timestep_loss_ratio", "training_gradient_norm", "candidate_metric", "model_promotions_total"),
        *("drift_window_events", "drift_evaluated_timestamp_seconds"),
    )
    deadline = time.monotonic() + 60
    while still := [name for name in moved if not watched.total(f"freshet_{name}")]:
        assert time.monotonic() < deadline, still
        watched.send(1)


def test_windows_of_both_kinds_of_workers_reach_the_trainer(watched: Watched) -> None:
    for signal in ("history_length", "new_user_rate", "event_type", "unknown_item_rate", "item_popularity"):

        def judged(signal: str = signal) -> bool:
            return watched.total("freshet_drift_evaluated_timestamp_seconds", signal=signal) > 0

        watched.until(judged, f"judging {signal}")
        assert watched.total("freshet_drift_window_events", signal=signal, window="current") > 0


def duplicated(number: int, sound: Interaction) -> list[Interaction]:
    return [sound, sound]


def misdated(number: int, sound: Interaction) -> list[Interaction]:
    """A clock that jumps a century ahead now and then."""
    return [sound] if number % 50 else [sound, replace(sound, timestamp=sound.timestamp + 3_155_760_000_000)]


def flooded(number: int, sound: Interaction) -> list[Interaction]:
    return [sound] if number % 5 else [sound, replace(sound, user="crawler")]


def nonsensical(number: int, sound: Interaction) -> list[Interaction]:
    return [sound] if number % 4 else [sound, replace(sound, item=f"junk-{uuid.uuid4().hex[:8]}")]


@pytest.fixture(scope="module")
def alerts(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], bool]]:
    """Does this check's alert fire? Asked of a Prometheus with our rules, here without their minutes of patience."""
    if PROMETHEUS is None:
        pytest.skip("prometheus is missing: apt-get install prometheus (Debian)")
    folder = tmp_path_factory.mktemp("alerts")
    rules = folder / "alerts.yml"
    rules.write_text(re.sub(r"\b(for|keep_firing_for): \w+", r"\1: 1s", RULES.read_text()).replace("[5m]", "[5s]"))
    targets = jobs(watched.pipeline.metrics_urls)
    with LocalPrometheus(PROMETHEUS, targets, folder, free_port(), 1.0, rules=rules) as prometheus:
        yield lambda check: bool(
            prometheus.query(
                f'ALERTS{{alertname="FreshetDataQualityFailed", check="{check}", alertstate="firing"}}',
            )
        )


@pytest.mark.parametrize(
    ("check", "fault"),
    [("duplicates", duplicated), ("clock", misdated), ("user_share", flooded), ("items", nonsensical)],
)
def test_a_broken_feed_freezes_training_fires_its_alert_and_is_over_by_itself(
    check: str,
    fault: Callable[[int, Interaction], list[Interaction]],
    watched: Watched,
    alerts: Callable[[str], bool],
) -> None:
    failing = partial(watched.total, "freshet_data_quality_state", check=check)
    frozen = partial(watched.total, "freshet_training_gate_failures_total", gate="data_quality")
    held = partial(watched.total, "freshet_training_round_seconds_count", stage="train")
    watched.until(lambda: failing() == 0 and not alerts(check), "the end of what came before")
    before = frozen()
    watched.send(4, fault)
    for _ in range(8):  # it goes on until it is noticed: on a busy machine a window may be judged without all its parts
        if failing() == 1:
            break
        watched.send(1, fault)
    watched.until(lambda: failing() == 1, "noticing the fault")
    watched.until(lambda: alerts(check), "firing the alert")
    watched.send(1, fault)
    watched.until(lambda: frozen() > before, "refusing a round")
    rounds = held()
    watched.send(4)
    watched.until(lambda: failing() == 0, "passing again")
    watched.until(lambda: not alerts(check), "the end of the alert")
    watched.send(1)
    watched.until(lambda: held() > rounds, "training again")


def test_a_users_last_list_and_history_are_found_in_the_topics(watched: Watched) -> None:
    with urllib.request.urlopen(f"{watched.page.url}user.json?user=u7", timeout=20) as page:
        found = json.load(page)
    assert found["items"] and found["variant"] in ("control", "popularity")
    assert 1 <= len(found["newest interactions"]) <= 10 <= found["interactions known"]
    assert not set(found["newest interactions"]) & {one["item"] for one in found["items"]}
    if found["variant"] == "control":
        named = [one["why"].removeprefix("above all because of ") for one in found["items"]]
        assert set(named) & set(found["newest interactions"]), named
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{watched.page.url}user.json?user=nobody", timeout=20)


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is missing: apt-get install prometheus (Debian)")
def test_prometheus_scrapes_all_of_it_without_an_error(watched: Watched, tmp_path: Path) -> None:
    assert PROMETHEUS
    with LocalPrometheus(PROMETHEUS, jobs(watched.pipeline.metrics_urls), tmp_path, free_port(), 1.0) as prometheus:
        processes = len(watched.pipeline.metrics_urls)
        watched.until(lambda: len(prometheus.query("up == 1")) == processes, "a scrape of all of them")
        series = prometheus.query("scrape_samples_post_metric_relabeling")
        assert len(series) == processes and all(0 < float(one["value"][1]) < 500 for one in series)
        names = {one["metric"]["__name__"] for one in prometheus.query('{__name__=~"freshet_.*"}')}
        found = {
            metric.exported + ("_bucket" if metric.kind == "histogram" else "")
            for process in METRICS.values()
            for metric in always(process)
        }
        assert found - names == set()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium (Debian)")
def test_chromium_shows_the_running_pipeline(watched: Watched, tmp_path: Path) -> None:
    assert CHROMIUM
    watched.page.scrape()
    picture = Path(os.environ.get("FRESHET_SCREENSHOTS") or tmp_path) / "status.png"
    begin = (CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    done = subprocess.run(
        [*begin, f"--user-data-dir={tmp_path / 'a'}", "--virtual-time-budget=4000", "--dump-dom", watched.page.url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    body = done.stdout[done.stdout.index("<body") : done.stdout.index("<script")]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))
    for words in ("updater", "scorer", "trainer", "history length", "live v", "popularity on the same events"):
        assert words in text, (words, text)
    assert "does not answer" not in text
    shot = (f"--screenshot={picture}", "--window-size=1280,2200", "--virtual-time-budget=4000", watched.page.url)
    subprocess.run([*begin, f"--user-data-dir={tmp_path / 'b'}", *shot], capture_output=True, timeout=120, check=True)
    assert picture.stat().st_size > 50_000
