"""Playing an interaction log back in time order, at a multiple of real time or as fast as Kafka takes it.

An interrupted replay continues where it stopped: the progress file names how many events, in time order, were
acknowledged by the broker. The few that were on their way then are sent again, which changes no history.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from stream.clients.admin import admin_client, topic_identity
from stream.clients.connection import KafkaConnection
from stream.sources.interaction_log import Columns, InteractionLog, read_log
from stream.sources.outbox import InteractionSink, Outbox, Pacer, Send, SourceConfig, as_record
from stream.wire.records import Interaction

__all__ = ["ProgressFile", "ReplayResult", "replay", "replay_file"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplayResult:
    """`delivered` counts from the start of the log; `sent` and `seconds` are of this run alone."""

    total: int
    started_at: int  # position the replay began or continued at
    sent: int
    delivered: int
    seconds: float

    @property
    def complete(self) -> bool:
        return self.delivered == self.total


class ProgressFile:
    """How far the replay of one file to one topic came, kept in `folder`.

    `source` and `topic` identify what is replayed where; another file, another choice of columns, or the topic made
    anew begin at the start.
    """

    def __init__(self, folder: Path, source: str, topic: str, every_seconds: float = 1.0) -> None:
        name = hashlib.blake2b(f"{source}\n{topic}".encode(), digest_size=12).hexdigest()
        self.path = folder / f"replay-{name}.json"
        self._identity = {"source": source, "topic": topic}
        self._every_seconds = every_seconds
        self._written = -math.inf

    def read(self) -> int:
        """Events delivered so far; 0 when there is no file or it is unreadable."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=dict[str, str | int])
        except FileNotFoundError:
            return 0
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s is unreadable, the replay starts at the beginning: %s", self.path, error)
            return 0
        delivered = found.get("delivered")
        return delivered if isinstance(delivered, int) and delivered > 0 else 0

    def note(self, delivered: int) -> None:
        """Write, once in a while."""
        if time.monotonic() - self._written >= self._every_seconds:
            self.write(delivered)

    def write(self, delivered: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode({**self._identity, "delivered": delivered}))
        Path(temporary).replace(self.path)
        self._written = time.monotonic()

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def replay(
    events: InteractionLog,
    send: Send,
    stop: threading.Event,
    *,
    speed: float = math.inf,
    progress: ProgressFile | None = None,
    on_delivered: Callable[[int], None] | None = None,
    on_event: Callable[[Interaction], None] | None = None,
    config: SourceConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ReplayResult:
    """Send every event of the log, in order, until the end or `stop`. Raises `SourceError`.

    Args:
        speed: multiple of real time; infinite sends as fast as `send` takes it.
        progress: where to continue, and where to note what was delivered.
        on_delivered: told the number of delivered events, counted from the start of the log, now and then.
        on_event: told each event as it is handed over.
    """
    if not speed > 0:
        raise ValueError(f"speed must be positive, got {speed}")
    start = min(progress.read(), len(events)) if progress is not None else 0

    def delivered(count: int) -> None:
        if progress is not None:
            progress.note(start + count)
        if on_delivered is not None:
            on_delivered(start + count)

    outbox = Outbox(send, config, delivered, stop)
    pacer = Pacer(stop, clock)
    first_ms = int(events.timestamps[start]) if start < len(events) else 0
    try:
        for event in events.interactions(start):
            if not pacer.wait((event.timestamp - first_ms) / 1000 / speed, outbox.collect):
                break
            if on_event is not None:
                on_event(event)
            outbox.send(*as_record(event))
        outbox.drain()
    finally:
        if progress is not None and (outbox.delivered or start):
            progress.write(start + outbox.delivered)
    return ReplayResult(len(events), start, outbox.sent, start + outbox.delivered, pacer.elapsed)


def replay_file(
    path: Path,
    connection: KafkaConnection,
    topic: str,
    stop: threading.Event,
    *,
    progress_dir: Path,
    columns: Columns | None = None,
    min_rating: float | None = None,
    speed: float = math.inf,
    restart: bool = False,
    console: Console | None = None,
    on_event: Callable[[Interaction], None] | None = None,
) -> ReplayResult:
    """`freshet replay`: read the file, say what it holds, and play it to an existing topic behind a progress bar.

    Raises `LogError` and `SourceError`.
    """
    console = console or Console(stderr=True)
    columns = columns or Columns()
    events = read_log(path, columns, min_rating)
    console.print(_described(path, events, min_rating), highlight=False, markup=False)
    with InteractionSink(connection, topic) as sink:
        progress = ProgressFile(progress_dir, _source_identity(path, columns, min_rating), _topic_id(connection, topic))
        if restart:
            progress.forget()
        if resumed_at := min(progress.read(), len(events)):
            console.print(f"continuing after {resumed_at:,} delivered events; --restart begins again", highlight=False)
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        with bar:
            task = bar.add_task(f"replaying to {topic}", total=len(events), completed=resumed_at, rate="")
            began = time.monotonic()

            def show(delivered: int) -> None:
                rate = (delivered - resumed_at) / max(time.monotonic() - began, 1e-3)
                bar.update(task, completed=delivered, rate=f"{rate:,.0f}/s")

            return replay(events, sink, stop, speed=speed, progress=progress, on_delivered=show, on_event=on_event)


def _described(path: Path, events: InteractionLog, min_rating: float | None) -> str:
    lines = [
        f"{path.name}: {len(events):,} events of {len(events.user_ids):,} users and {len(events.item_ids):,} items "
        f"in {events.rows:,} rows"
    ]
    if min_rating is not None:
        lines.append(f"  {events.below_minimum:,} rated below {min_rating:g}")
    if events.malformed:
        lines.append(f"  {events.malformed:,} malformed and left out, for example:")
        lines += [f"    {example}" for example in events.examples]
    return "\n".join(lines)


def _source_identity(path: Path, columns: Columns, min_rating: float | None) -> str:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    chosen = {name: value for name, value in asdict(columns).items() if value is not None}
    return f"{path.name} {content} columns={chosen} min_rating={min_rating}"


def _topic_id(connection: KafkaConnection, topic: str) -> str:
    with admin_client(connection) as admin:
        return f"{topic} {topic_identity(admin, topic)['topic_id']}"
