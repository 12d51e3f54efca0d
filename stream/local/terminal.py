"""What is written to a terminal, or to a file in its place."""

from __future__ import annotations

from collections import deque

from rich.console import Console
from rich.text import Text

__all__ = ["PrefixedLog", "output"]

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_FILE_COLUMNS = 200  # a file has no width; rich would take 80 and cut the figures of a table short


def output() -> Console:
    """Standard output, for tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_COLUMNS)


class PrefixedLog:
    """Lines of several processes, each behind its name.

    Prints lines as they come, or keeps the last ones for a live view when `printing` is off.
    """

    def __init__(self, console: Console, printing: bool = True, keep: int = 200) -> None:
        self._console, self.printing = console, printing
        self.recent: deque[tuple[str, str]] = deque(maxlen=keep)
        self._colours: dict[str, str] = {}

    def __call__(self, name: str, line: str) -> None:
        self.recent.append((name, line))
        if self.printing:
            self._console.print(self.styled(name, line), soft_wrap=True)

    def styled(self, name: str, line: str) -> Text:
        colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
        return Text.assemble((f"{name:>9} ", colour), ("│ ", "dim"), line)
