"""The whole of Freshet on a real Kafka, its processes as an operator runs them."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from stream.clients.connection import KafkaConnection
from stream.demo.scrape import scrape
from stream.local.pipeline import Pipeline, PipelineConfig
from stream.wire.topics import TopicPlan, ensure_topics
from tests.support.probes import probe

__all__ = ["Running", "freshet"]

TRAINER = (
    *("--round-seconds", "3", "--first-users", "20", "--first-interactions", "200"),
    *("--first-epochs", "2", "--first-updates", "20", "--updates", "5", "--threads", "1"),
)


@dataclass
class Running:
    pipeline: Pipeline
    lines: list[str] = field(default_factory=list)

    def pid(self, name: str) -> int:
        process = self.pipeline.supervisor.children[name].process
        assert process is not None
        return process.pid

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen:\n" + "\n".join(self.lines[-40:])
            time.sleep(0.1)

    def total(self, name: str, **labels: str) -> float:
        return scrape(self.pipeline.metrics_urls).total(name, **labels)

    def probe(self, name: str, path: str) -> str:
        port = urlsplit(self.pipeline.metrics_urls[name]).port
        assert port is not None
        return probe(port, path)

    def ready(self) -> bool:
        seen = scrape(self.pipeline.metrics_urls)
        return not seen.down and not seen.waiting()


@contextmanager
def freshet(
    folder: Path, kafka: KafkaConnection, plan: TopicPlan, settings: Sequence[str] = (), trainer: Sequence[str] = ()
) -> Iterator[Running]:
    ensure_topics(kafka, plan)
    lines: list[str] = []
    pipeline = Pipeline(
        PipelineConfig(folder),
        kafka.bootstrap_servers,
        plan,
        lambda name, line: lines.append(f"{name} | {line}"),
        settings=settings,
        options={"trainer": (*TRAINER, *trainer)},
    )
    running = Running(pipeline, lines)
    stop = threading.Event()
    clean: list[bool] = []
    thread = threading.Thread(target=lambda: clean.append(running.pipeline.run(stop)))
    thread.start()
    try:
        running.until(running.ready, "starting", seconds=240)
        yield running
    finally:
        began = time.monotonic()
        stop.set()
        thread.join(30)
    assert clean == [True], "\n".join(lines[-40:])
    assert time.monotonic() - began < 10
