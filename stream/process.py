"""The common part of all processes: logging, signals, and how a process ends."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Literal, NoReturn

__all__ = [
    "PARENT_PID",
    "REFUSED",
    "ProcessConfig",
    "die_with_parent",
    "end_process",
    "name_process",
    "prepare_process",
    "run_at_idle_priority",
    "tune_gc",
]

# Client libraries whose messages do not help an operator. Below INFO they write their settings, including passwords.
_QUIET = ("kafka", "aiokafka", "faust", "mode", "asyncio", "urllib3", "fsspec")

REFUSED = 2  # exit code: a person must correct something first, a restart does not help
PARENT_PID = "FRESHET_PARENT_PID"  # environment variable that names the supervisor
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_SWITCH_SECONDS = 0.0001
_YOUNG_OBJECTS = 20_000  # created since the last collection and still alive; Python's own limit is 700


@dataclass(frozen=True)
class ProcessConfig:
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity of a line in the log."""
    alive_seconds: float = 120.0
    """Time without a turn of its main loop after which /healthz says that a process hangs."""

    def __post_init__(self) -> None:
        if self.alive_seconds <= 0:
            raise ValueError(f"alive_seconds must be positive, got {self.alive_seconds}")


def prepare_process(log_level: str, grace_seconds: float | None = 8.0) -> threading.Event:
    """Set up logging and return the event that SIGINT and SIGTERM set.

    A process that still runs `grace_seconds` after the first signal ends at once with exit code 1, because a client
    library may wait for a broker that is down. No data is lost by that, see `stream.updater.worker`.
    """
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.INFO if log_level.upper() == "DEBUG" else logging.ERROR)
    # Numerical code releases the interpreter lock at every call and must get it back. Next to one busy thread of a
    # client library, with the usual interval of 5 ms, ranking a batch would take many times as long.
    sys.setswitchinterval(_SWITCH_SECONDS)
    die_with_parent()
    stop = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        if not stop.is_set() and grace_seconds is not None:
            watchdog = threading.Timer(grace_seconds, os._exit, (1,))
            watchdog.daemon = True
            watchdog.start()
        stop.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    return stop


def run_at_idle_priority() -> None:
    """From now on this thread, and every thread that it starts, runs only while no other thread needs the core.

    A high niceness is not enough: Linux lets the running thread finish its slice of some milliseconds before a thread
    of higher priority that has just woken, and a scorer wakes many times for one batch. A thread of `SCHED_IDLE` is
    preempted at once.
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def tune_gc() -> None:
    """Call this when all long-lived objects are loaded: the garbage collector never visits them again.

    A full collection stops every thread, for 70 to 90 ms with torch and Faust loaded. Young objects are also collected
    less often: nearly all of them belong to records, which have no cycles and are freed without the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


def end_process(code: int) -> NoReturn:
    """End a worker that has closed all its resources.

    A normal exit would take seconds, on a busy machine longer than a supervisor waits, because the interpreter deletes
    the objects of torch and Faust one by one.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def die_with_parent() -> None:
    """Called by a child process: it gets SIGTERM when the supervisor ends in any way (only on Linux)."""
    parent = os.environ.get(PARENT_PID)
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # the supervisor ended before the call
        os.kill(os.getpid(), signal.SIGTERM)


def name_process(name: str) -> None:
    """Set the name of this process for `ps -o comm` and `pkill`, at most 15 bytes (only on Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
