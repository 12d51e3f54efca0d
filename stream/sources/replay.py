"""Sends an interaction log in time order, at a multiple of real time or as fast as Kafka accepts it.

An interrupted replay continues where it stopped: the progress file says how many events, in time order, the broker had
acknowledged. The few events that were sent but not acknowledged are sent again, which changes no history.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from stream.clients.admin import admin_client, topic_identity
from stream.clients.connection import KafkaConnection
from stream.sources.log.options import LogOptions
from stream.sources.log.reader import InteractionLog, read_log
from stream.sources.outbox import InteractionSink, Outbox, Pacer, Send, SourceConfig, as_record
from stream.sources.replay_progress import ProgressFile, source_identity
from stream.wire.records import Interaction

__all__ = ["Events", "ReadingStopped", "ReplayResult", "describe", "read_shown", "replay", "replay_file"]

log = logging.getLogger(__name__)


class ReadingStopped(Exception):
    """The process was asked to end before the log had been read."""


class Events(Protocol):
    """Interactions in time order, from any position on."""

    def __len__(self) -> int: ...

    def interactions(self, start: int = 0) -> Iterator[Interaction]: ...


@dataclass(frozen=True)
class ReplayResult:
    """`delivered` counts from the start of the log; `sent` and `seconds` are those of this run alone."""

    total: int
    started_at: int  # position the replay began or continued at
    sent: int
    delivered: int
    seconds: float

    @property
    def complete(self) -> bool:
        return self.delivered == self.total


def resume_at(events: Events, progress: ProgressFile, read_alike: bool) -> int:
    """The position of the first event that was not delivered.

    The event before it must have the time that the progress file has for it. Otherwise the log is now read differently,
    and the replay begins again: to send an event twice changes no history, but an event left out is lost. The previous
    release stored no time; `read_alike` says whether it read the log as this one does.
    """
    delivered = progress.read()
    if not delivered.events:
        return 0
    if delivered.last_ms is None:
        return min(delivered.events, len(events)) if read_alike else 0
    last = next(events.interactions(delivered.events - 1), None)
    if last is None or last.timestamp != delivered.last_ms:
        log.warning("%s counts events of a log that is read otherwise now; the replay begins again", progress.path)
        return 0
    return delivered.events


def replay(
    events: Events,
    send: Send,
    stop: threading.Event,
    *,
    speed: float = math.inf,
    start: int = 0,
    progress: ProgressFile | None = None,
    on_delivered: Callable[[int], None] | None = None,
    on_event: Callable[[Interaction], None] | None = None,
    config: SourceConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ReplayResult:
    """Send every event of the log from `start` on, in order, until the end or `stop`. Raises `SourceError`.

    Args:
        speed: multiple of real time; infinite sends as fast as `send` takes it.
        progress: the file that stores the number of delivered events.
        on_delivered: called now and then with the number of delivered events, counted from the start of the log.
        on_event: called with each event before it is sent.
    """
    if not speed > 0:
        raise ValueError(f"speed must be positive, got {speed}")
    waiting: deque[int] = deque()  # times of the events that are not known to be delivered
    last_ms = settled = 0

    def settle(count: int) -> None:
        nonlocal last_ms, settled
        while settled < count:
            last_ms = waiting.popleft()
            settled += 1

    def delivered(count: int) -> None:
        settle(count)
        if progress is not None:
            progress.note(start + count, last_ms)
        if on_delivered is not None:
            on_delivered(start + count)

    outbox = Outbox(send, config, delivered, stop)
    pacer = Pacer(stop, clock)
    first_ms: int | None = None
    try:
        for event in events.interactions(start):
            if first_ms is None:
                first_ms = event.timestamp
            if not pacer.wait((event.timestamp - first_ms) / 1000 / speed, outbox.collect):
                break
            if on_event is not None:
                on_event(event)
            waiting.append(event.timestamp)
            outbox.send(*as_record(event))
        outbox.drain()
    finally:
        settle(outbox.delivered)  # a failure is raised before the outbox reports the last delivered events
        if progress is not None and settled:
            progress.write(start + settled, last_ms)
    return ReplayResult(len(events), start, outbox.sent, start + outbox.delivered, pacer.elapsed)


def describe(events: InteractionLog, console: Console) -> None:
    """Print the summary of what was read from a log."""
    for line in events.account.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def read_shown(
    path: Path, options: LogOptions, console: Console, stop: threading.Event, *, usual_ratings: bool = False
) -> InteractionLog:
    """`read_log` with a progress bar. Raises `LogError` and `ReadingStopped`."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"reading {path.name}", total=1.0)

        def show(share: float) -> None:
            if stop.is_set():
                raise ReadingStopped(str(path))
            bar.update(task, completed=share)

        return read_log(path, options, usual_ratings=usual_ratings, progress=show)


def replay_file(
    path: Path,
    connection: KafkaConnection,
    topic: str,
    stop: threading.Event,
    *,
    progress_dir: Path,
    options: LogOptions | None = None,
    speed: float = math.inf,
    restart: bool = False,
    console: Console | None = None,
    on_event: Callable[[Interaction], None] | None = None,
) -> ReplayResult:
    """`freshet replay`: read the file, print the summary, and send its events to an existing topic with a progress bar.

    Raises `LogError`, `ReadingStopped` and `SourceError`.
    """
    console = console or Console(stderr=True)
    options = options or LogOptions()
    with InteractionSink(connection, topic) as sink, read_shown(path, options, console, stop) as events:
        describe(events, console)
        progress = ProgressFile(progress_dir, source_identity(path, options), _topic_id(connection, topic))
        if restart:
            progress.forget()
        start = resume_at(events, progress, events.account.read_alike_before)
        if start:
            console.print(f"continuing after {start:,} delivered events; --restart begins again", highlight=False)
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
            task = bar.add_task(f"replaying to {topic}", total=len(events), completed=start, rate="")
            began = time.monotonic()

            def show(delivered: int) -> None:
                rate = (delivered - start) / max(time.monotonic() - began, 1e-3)
                bar.update(task, completed=delivered, rate=f"{rate:,.0f}/s")

            return replay(
                events,
                sink,
                stop,
                speed=speed,
                start=start,
                progress=progress,
                on_delivered=show,
                on_event=on_event,
            )


def _topic_id(connection: KafkaConnection, topic: str) -> str:
    with admin_client(connection) as admin:
        return f"{topic} {topic_identity(admin, topic)['topic_id']}"
