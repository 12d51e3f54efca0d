"""How far a replay came, kept in a file, so that an interrupted one continues where it stopped."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import msgspec

from stream.sources.log.opening import log_files
from stream.sources.log.options import LogOptions

__all__ = ["Delivered", "ProgressFile", "source_identity"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivered:
    """The first `events` events, in time order, are acknowledged; the last of them happened at `last_ms`.

    `last_ms` is None in a file of the previous release, which did not store it.
    """

    events: int
    last_ms: int | None


class ProgressFile:
    """The progress of one log to one topic, in `folder`.

    `source` and `topic` identify the log and the topic; for another file, other options, or a topic that was created
    again, the replay begins at the start.
    """

    def __init__(self, folder: Path, source: str, topic: str, every_seconds: float = 1.0) -> None:
        name = hashlib.blake2b(f"{source}\n{topic}".encode(), digest_size=12).hexdigest()
        self.path = folder / f"replay-{name}.json"
        self._identity = {"source": source, "topic": topic}
        self._every_seconds = every_seconds
        self._written = -math.inf

    def read(self) -> Delivered:
        """The stored progress; no events when there is no file or it is unreadable."""
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=dict[str, str | int])
        except FileNotFoundError:
            return Delivered(0, None)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("%s is unreadable, the replay starts at the beginning: %s", self.path, error)
            return Delivered(0, None)
        events, last_ms = found.get("delivered"), found.get("last_ms")
        if not isinstance(events, int) or events <= 0:
            return Delivered(0, None)
        return Delivered(events, last_ms if isinstance(last_ms, int) else None)

    def note(self, events: int, last_ms: int) -> None:
        """Write, but at most once in `every_seconds`."""
        if time.monotonic() - self._written >= self._every_seconds:
            self.write(events, last_ms)

    def write(self, events: int, last_ms: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode({**self._identity, "delivered": events, "last_ms": last_ms}))
        Path(temporary).replace(self.path)
        self._written = time.monotonic()

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


# The options of the previous release about a log, in its order.
_FIRST_OPTIONS = ("user", "item", "timestamp", "rating", "weight", "event", "time_unit", "delimiter", "header")


def source_identity(path: Path, options: LogOptions) -> str:
    """A text that is the same for the same file name, bytes and options. With only those options that the previous
    release knew, it is also the text of that release.

    Raises `LogError`.
    """
    files = log_files(path, options.member)
    digests = []
    for file in files:
        with file.path.open("rb") as content:
            digests.append(hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest())
    whole = digests[0] if len(digests) == 1 else hashlib.blake2b(" ".join(digests).encode(), digest_size=16).hexdigest()
    first = {name: value for name in _FIRST_OPTIONS if (value := getattr(options, name)) is not None}
    defaults = LogOptions()
    later = {
        field.name: asdict(options)[field.name]
        for field in fields(options)
        if field.name not in (*_FIRST_OPTIONS, "min_rating")
        and getattr(options, field.name) != getattr(defaults, field.name)
    }
    identity = f"{path.name} {whole} columns={first} min_rating={options.min_rating}"
    return f"{identity} options={later}" if later else identity
