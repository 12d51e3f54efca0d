"""Commands of `freshet` run by a fork of a process that has imported what they need: a start costs no import.

Importing torch costs seconds of a core, which a scorer that was killed would spend while its users wait. The process
that is forked only imports: no thread runs in it, nothing is connected, opened or asked of a GPU
(`tests/stream/local/test_forked.py` holds that), so a fork of it is as good as a process that has just imported the
same. Python's own fork server does the work: it starts that process, hands over what to run, and tells how it ended.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO

from stream.process import PARENT_PID, name_process

__all__ = ["ForkServer", "Forked"]

_PRELOADED = "stream.local.preloaded"


class ForkServer:
    """Ends with this process, as do the commands that it runs."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOADED])

    def run(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Forked:
        """Run `freshet` with these arguments and nothing but this environment. Returns at once, though the first
        command begins only when everything is imported. `name` is what the system calls the process."""
        reading, writing = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_run, args=(name, list(arguments), dict(environment), writing), name=name, daemon=False
        )
        return Forked(process, reading, writing)


class Forked:
    """A command that runs or ran, as `subprocess.Popen` shows it; standard output and error come out of `stdout`."""

    def __init__(
        self, process: multiprocessing.context.ForkServerProcess, reading: Connection, writing: Connection
    ) -> None:
        self._process, self._writing = process, writing
        self.stdout: IO[str] = os.fdopen(os.dup(reading.fileno()), errors="replace")
        reading.close()
        self._error = ""
        self._ends = threading.Event()  # asked to end before it began
        self._starting = threading.Thread(target=self._start, daemon=True)
        self._starting.start()

    def _start(self) -> None:
        try:
            self._process.start()
            if self._ends.is_set():
                self._process.terminate()
        except Exception as error:  # noqa: BLE001 - told as its output, and its status says that it failed
            why = " ".join(str(error).split())
            self._error = f"it could not be forked: {type(error).__name__}: {why}\n"
            os.write(self._writing.fileno(), self._error.encode())
        finally:
            self._writing.close()

    @property
    def pid(self) -> int:
        """Waits for its beginning; 0 when it never began."""
        self._starting.join()
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Negative: the signal that ended it."""
        if self._starting.is_alive():
            return None
        return 1 if self._error else self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        self._starting.join(timeout)
        if not (self._starting.is_alive() or self._error):
            self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self.returncode

    def terminate(self) -> None:
        self._ends.set()
        if self._running:
            self._process.terminate()

    def kill(self) -> None:
        self._ends.set()
        if self._running:
            self._process.kill()

    @property
    def _running(self) -> bool:
        return not (self._starting.is_alive() or self._error)


def _run(name: str, arguments: Sequence[str], environment: Mapping[str, str], output: Connection) -> None:
    """In the fork."""
    name_process(name)
    os.setsid()  # a Ctrl-C reaches the supervisor alone, which ends its children in order
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    output.close()
    os.environ.clear()
    # The parent is the process that was forked, which ends when the supervisor ends, but not as long as forks live.
    os.environ.update({**environment, PARENT_PID: str(os.getppid())})
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    sys.argv = ["freshet", *arguments]
    runpy.run_module("stream.cli", run_name="__main__")  # as a process of its own is started


def _end_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)
