"""The status page: figures that are right, one page that needs nothing from outside, and Chromium that shows it."""

import http.client
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ops.local.figures import figures
from ops.local.scraping import Samples, quantile, read
from ops.local.status import PAGE, StatusPage
from ops.metrics import ScorerMetrics, TrainerMetrics, UpdaterMetrics
from ops.server import serve

CHROMIUM = shutil.which(os.environ.get("FRESHET_CHROMIUM") or "chromium")


class World:
    """Three processes' metrics, served, and a status page over them with a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.registries = [CollectorRegistry() for _ in range(3)]
        self.updater = UpdaterMetrics(self.registries[0])
        self.scorer = ScorerMetrics(self.registries[1])
        self.trainer = TrainerMetrics(self.registries[2])
        names = ("updater", "scorer", "trainer")
        self.servers = [serve(registry) for registry in self.registries]
        urls = {n: f"http://127.0.0.1:{s.port}/metrics" for n, s in zip(names, self.servers, strict=True)}
        urls["gone"] = "http://127.0.0.1:1/metrics"
        self.page = StatusPage(urls, self.lookup, every_seconds=3600, clock=lambda: self.now)

    @staticmethod
    def lookup(user: str) -> dict | None:
        if user == "broken":
            raise RuntimeError("the store is closed")
        if user != "ann":
            return None
        return {"model": "m2", "items": [{"item": "<b>i1</b>", "score": 0.9, "why": "after i7"}]}

    def get(self, path: str, host: str | None = None) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=5)
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        found = answer.status, answer.read().decode(), dict(answer.headers)
        connection.close()
        return found

    def status(self) -> dict:
        return json.loads(self.get("/status.json")[1])

    def live(self) -> None:
        """A minute in the life of it."""
        updater, scorer, trainer = self.updater, self.scorer, self.trainer
        updater.events_consumed["interactions"].inc(600)
        updater.events_applied["applied"].inc(590)
        updater.dead_letters["schema"].inc(4)
        updater.progress_timestamp.set(self.now)
        for number in range(100):
            scorer.event_to_recommendation.observe(0.2 + number / 1000)
            scorer.prequential_rank["control", "live"].observe(4 if number < 30 else 21)
            scorer.prequential_rank["popularity", "live"].observe(4 if number < 10 else 21)
        scorer.recommendations_published["control"].inc(500)
        scorer.model_info.labels("live", "m2", "m1").set(1)
        scorer.model_data_timestamp["live"].set(self.now - 60)
        scorer.model_vocabulary_items["live"].set(3000)
        trainer.training_rounds["drift", "promoted"].inc()
        trainer.model_promotions.inc()
        trainer.drift_state["item_popularity", "training"].set(2)
        trainer.drift_statistic["item_popularity", "training", "psi"].set(0.41)
        trainer.drift_critical_value["item_popularity", "training"].set(0.05)
        trainer.drift_window_events["item_popularity", "current"].set(4100)
        trainer.drift_evaluated_timestamp["item_popularity"].set(self.now)
        trainer.consumer_lag_records.labels("updater", "interactions", "0").set(7)
        trainer.consumer_lag_records.labels("updater", "interactions", "1").set(3)
        trainer.data_quality_state["duplicates"].set(1)

    def close(self) -> None:
        self.page.close()
        for server in self.servers:
            server.close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_the_figures_are_those_of_the_processes(world: World) -> None:
    world.now += 10
    world.live()
    world.page.scrape()
    found = world.status()
    assert [(p["name"], p["up"]) for p in found["processes"]] == [
        ("updater", True),
        ("scorer", True),
        ("trainer", True),
        ("gone", False),
    ]
    assert found["rates"] == {"events": 60.0, "lists": 50.0}
    assert found["totals"]["dead_letters"] == {"schema": 4}
    assert 0.2 < found["latency"]["event_to_recommendation"]["p50"] <= 0.3
    assert found["lag"] == [{"topic": "interactions", "records": 10, "worst": 7}]
    assert found["models"] == [{"slot": "live", "version": "m2", "parent": "m1", "age": 60, "items": 3000}]
    assert found["training"]["rounds"] == {"drift": {"promoted": 1}}
    drifted = next(d for d in found["drift"] if d["signal"] == "item_popularity" and d["reference"] == "training")
    assert (drifted["state"], drifted["value"], drifted["critical"], drifted["events"]) == (2, 0.41, 0.05, 4100)
    assert {v["variant"]: v["hit"] for v in found["quality"]["variants"]} == {"control": 0.3, "popularity": 0.1}
    assert found["feed"]["duplicates"] is False and found["feed"]["clock"] is True
    assert found["series"][-1]["hit"] == 0.3


def test_a_process_that_restarted_does_not_run_backwards() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    seen: list[Samples] = []
    for registry, observed in zip(registries, (50, 5), strict=True):
        metrics = ScorerMetrics(registry)
        metrics.recommendations_published["control"].inc(observed)
        for _ in range(observed):
            metrics.event_to_recommendation.observe(0.1)
        server = serve(registry)
        seen.append(read({"scorer": f"http://127.0.0.1:{server.port}/metrics"}, seconds=10.0 * len(seen)))
        server.close()
    found = figures(seen[1], seen[0], seen[0])
    assert found["rates"]["lists"] == 0 and found["latency"]["event_to_recommendation"]["events"] == 5


def test_quantiles_lie_where_the_observations_do() -> None:
    inf = float("inf")
    assert quantile(0.5, {0.1: 0, 0.2: 100, inf: 100}) == pytest.approx(0.15)
    assert quantile(0.99, {0.1: 50, 0.2: 50, inf: 100}) == 0.2
    assert quantile(0.5, {}) is None and quantile(0.5, {0.1: 0, inf: 0}) is None


def test_a_user_is_looked_up_and_a_failing_lookup_says_so(world: World) -> None:
    status, text, _ = world.get("/user.json?user=ann")
    assert status == 200 and json.loads(text)["items"][0]["item"] == "<b>i1</b>"
    assert world.get("/user.json?user=nobody")[0] == 404
    assert world.get("/user.json")[0] == 404
    assert world.get("/user.json?user=broken")[:2] == (500, '{"error": "the lookup failed: RuntimeError"}')


def test_it_answers_this_machine_only_and_loads_nothing_from_elsewhere(world: World) -> None:
    status, text, headers = world.get("/")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    assert world.get("/status.json", host="evil.example")[0] == 403
    assert world.get("/../metrics.py")[0] == 404
    # The only absolute address is the name space of SVG.
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|\beval\b", text)


def dump(world: World, folder: Path, *arguments: str) -> str:
    """The page's DOM after its script ran."""
    assert CHROMIUM
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={folder}", "--virtual-time-budget=4000", *arguments, world.page.url),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install chromium (Debian)")
def test_chromium_shows_the_figures(world: World, tmp_path: Path) -> None:
    world.now += 10
    world.live()
    world.page.scrape()
    found = dump(world, tmp_path / "profile", "--dump-dom")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found[found.index("<body") : found.index("<script")]))
    for words in (
        "gone does not answer",
        "60 per second",
        "ms median",
        "30.0 % of the last minutes",
        "popularity on the same events 10.0 %",
        "item popularity training drift 0.410 0.050",
        "live m2 m1 1 min ago 3,000",
        "training is frozen: duplicates",
        "interactions 10 7",
        "schema 4",
    ):
        assert words in text, (words, text)
    picture = tmp_path / "narrow.png"
    dump(world, tmp_path / "profile2", f"--screenshot={picture}", "--window-size=400,2400")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and picture.stat().st_size > 20_000


def test_nothing_is_left_running(world: World) -> None:
    world.page.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("status") and t.is_alive()]
    assert PAGE.exists()
