"""One line of JSON for each request, written by a thread of its own so that a slow disk or pipe delays no answer."""

from __future__ import annotations

import logging
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler

import msgspec

from stream.api.config import ApiConfigError

__all__ = ["AccessLine", "access_log"]


class AccessLine(msgspec.Struct, frozen=True):
    """The line has the route and not the path, so that neither ids of users nor tokens are logged."""

    time: float  # seconds since 1970 UTC
    client: str  # address
    caller: str  # name of the token
    method: str
    route: str
    status: int
    bytes: int  # of the answer's body
    ms: float


@contextmanager
def access_log(where: str) -> Iterator[Callable[[AccessLine], None] | None]:
    """Writes to a file (which may be rotated), to standard output for `-`, or nowhere for `off`.

    Raises `ApiConfigError` when the file cannot be opened.
    """
    if where == "off":
        yield None
        return
    try:
        handler = logging.StreamHandler(sys.stdout) if where == "-" else WatchedFileHandler(where)
    except OSError as error:
        raise ApiConfigError(f"access log: {error}") from None
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    log = logging.getLogger("freshet.access")
    log.propagate, log.level = False, logging.INFO
    entry = QueueHandler(lines)
    log.addHandler(entry)
    listener = QueueListener(lines, handler)
    listener.start()
    try:
        yield lambda line: log.info(msgspec.json.encode(line).decode())
    finally:
        log.removeHandler(entry)
        listener.stop()
        handler.close()
