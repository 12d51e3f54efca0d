"""Instances of the HTTP API, in a thread of the test or in a process of their own, and what they are asked."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.api.config import ApiConfig
from stream.api.server import Api
from stream.clients.connection import KafkaConnection
from stream.wire.item_lists import ItemList
from stream.wire.items import ItemRecord
from stream.wire.partitioning import home_of
from stream.wire.records import ScoredItem
from stream.wire.topics import TopicPlan

ROOT = Path(__file__).parents[2]


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
) -> Answer:
    """One request; every status is an answer. Raises OSError when there is none."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": "application/json", **(headers or {})} if data is not None else dict(headers or {})
    request = urllib.request.Request(url, data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)
    return found


@dataclass
class Instance:
    url: str

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.url + path, method, body, named)

    def ready(self) -> bool:
        try:
            return self.ask("/readyz").status == 200
        except OSError:
            return False

    def until_ready(self) -> None:
        until(self.ready, f"{self.url} being ready")

    def list_of(self, user: str, query: str = "") -> Any:
        answer = self.ask(f"/v1/users/{user}/recommendations{query}")
        assert answer.status == 200, answer
        return answer.json


@contextmanager
def api(kafka: KafkaConnection, plan: TopicPlan, folder: Path, **settings: Any) -> Iterator[Instance]:
    """An instance in a thread; leaving the block stops it the way SIGTERM does."""
    given: dict[str, Any] = {"port": 0, "access_log": "off", "session_seconds": 6.0} | settings
    config = ApiConfig(folder, **given)
    instance = Api(config, kafka, plan)
    stop, ended = threading.Event(), []

    def work() -> None:
        ended.append(instance.run(stop))

    thread = threading.Thread(target=work)
    thread.start()
    shown = Instance(f"http://127.0.0.1:{instance.port}")
    try:
        shown.until_ready()
        yield shown
    finally:
        stop.set()
        thread.join(30)
    assert ended == [True]


class ApiProcess(Instance):
    """`freshet api` as an operator runs it."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, *options: str, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "stream.cli", "api", "--prefix", plan.prefix),
                *("--partitions", str(plan.partitions), "--state-dir", str(folder), "--port", str(port)),
                *("--access-log", "off", "--session-seconds", "6", *options),
            ],
            cwd=ROOT,
            env={**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._found = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._found.wait(30) and self.lines, "\n".join(self.lines)
        super().__init__(self.url)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if match := re.search(r"api at (http://\S+),", line):
                self.url = match.group(1)
                self._found.set()
        self._found.set()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


Headers = Sequence[tuple[str, bytes]]


class Writer:
    """Writes lists and histories as scorer and updater do."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan) -> None:
        self._plan = plan
        self._producer = KafkaProducer(**kafka.kafka_python(), linger_ms=0)

    def _send(self, topic: str, user: str, value: bytes | None, away: int = 0, headers: Headers = ()) -> None:
        key = user.encode()
        partition = (home_of(key, self._plan.partitions) + away) % self._plan.partitions
        self._producer.send(topic, value, key=key, partition=partition, headers=list(headers)).get(timeout=10)

    def list_of(self, user: str, items: list[str], as_of: int = 1, **fields: Any) -> None:
        value = {
            "user": user,
            "items": [{"item": item, "score": 1.0 / place} for place, item in enumerate(items, 1)],
            "model": "v1",
            "variant": "control",
            "as_of": as_of,
            "reason": "event",
            "published": int(time.time() * 1000),
            **fields,
        }
        self._send(self._plan.recommendations, user, json.dumps(value).encode())

    def raw_list(self, user: str, value: bytes | None, away: int = 0, headers: Headers = ()) -> None:
        """`away`: so many partitions from the one where the user lives."""
        self._send(self._plan.recommendations, user, value, away, headers)

    def history_of(self, user: str, items: Mapping[str, int]) -> None:
        history = merge_entries(EMPTY, [Entry(time_ms, item, 1.0) for item, time_ms in items.items()], 200)
        self._send(self._plan.histories, user, codec.encode(history))

    def item_list(self, name: str, items: list[str]) -> None:
        scored = tuple(ScoredItem(item, 1.0 / place) for place, item in enumerate(items, 1))
        value = ItemList(name, scored, "v1", 41, int(time.time() * 1000)).encode()
        self._producer.send(self._plan.item_lists, value, key=name.encode(), partition=0).get(timeout=10)

    def item(self, item: str, **said: Any) -> None:
        value = ItemRecord(item, **said).encode()
        self._producer.send(self._plan.items, value, key=item.encode(), partition=0).get(timeout=10)

    def close(self) -> None:
        self._producer.close(timeout=5)
