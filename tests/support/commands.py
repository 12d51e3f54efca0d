"""`freshet` in this process, as its entry point runs it."""

import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import NamedTuple
from unittest.mock import patch

from stream.cli.main import main

__all__ = ["Done", "freshet"]


class Done(NamedTuple):
    exit_code: int
    output: str
    errors: str

    @property
    def refusal(self) -> str:
        """The one line of a refusal."""
        assert self.exit_code == 2, self
        (line,) = self.errors.splitlines()
        assert line.startswith("freshet"), self
        return line


def freshet(*arguments: str, environment: Mapping[str, str] | None = None) -> Done:
    """Run a command with no other `FRESHET_*` variables than these; an error that nobody expects is raised."""
    output, errors = StringIO(), StringIO()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
    wanted = {**kept, **(environment or {})}
    with patch.dict(os.environ, wanted, clear=True), redirect_stdout(output), redirect_stderr(errors):
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return Done(code, output.getvalue(), errors.getvalue())
