"""Runs commands of `freshet` in a fork of a process that has imported their modules, so that a start needs no imports.

Importing torch takes seconds, for which the users of a killed scorer would wait. The process that is forked only
imports: it has no threads, opens no files or connections, and does not use a GPU
(`tests/stream/local/test_forked.py` checks this), so a fork of it is like a process that has just imported the same.
Python's own fork server does the work: it starts that process, passes the command to the fork, and returns its status.
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
    """A fork server. It ends with this process, and so do the commands that it runs."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOADED])

    def run(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Forked:
        """Run `freshet` with these arguments and only this environment. Returns at once, but the first command begins
        only after the imports. `name` is the name of the process in the operating system."""
        reading, writing = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_run, args=(name, list(arguments), dict(environment), writing), name=name, daemon=False
        )
        return Forked(process, reading, writing)


class Forked:
    """A command that runs or has ended, with the interface of `subprocess.Popen`. `stdout` has both standard output and
    standard error."""

    def __init__(
        self, process: multiprocessing.context.ForkServerProcess, reading: Connection, writing: Connection
    ) -> None:
        self._process, self._writing = process, writing
        self.stdout: IO[str] = os.fdopen(os.dup(reading.fileno()), errors="replace")
        reading.close()
        self._error = ""
        self._ends = threading.Event()  # set when the command is to end, possibly before it has begun
        self._starting = threading.Thread(target=self._start, daemon=True)
        self._starting.start()

    def _start(self) -> None:
        try:
            self._process.start()
            if self._ends.is_set():
                self._process.terminate()
        except Exception as error:  # noqa: BLE001 - written to its output, and its status is 1
            why = " ".join(str(error).split())
            self._error = f"it could not be forked: {type(error).__name__}: {why}\n"
            os.write(self._writing.fileno(), self._error.encode())
        finally:
            self._writing.close()

    @property
    def pid(self) -> int:
        """The id of the process, after waiting for its start; 0 when the start failed."""
        self._starting.join()
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """The exit status; None while the command runs. A negative status is the signal that ended it."""
        if self._starting.is_alive():
            return None
        return 1 if self._error else self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, after the end. Raises `subprocess.TimeoutExpired`."""
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
    """The main function of the fork."""
    name_process(name)
    os.setsid()  # a Ctrl-C reaches the supervisor alone, which ends its children in order
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    output.close()
    os.environ.clear()
    # The parent is the fork server, which ends after the supervisor, but not while any fork runs.
    os.environ.update({**environment, PARENT_PID: str(os.getppid())})
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    sys.argv = ["freshet", *arguments]
    runpy.run_module("stream.cli", run_name="__main__")  # as in a process of its own


def _end_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)
