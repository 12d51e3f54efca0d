"""Output to a terminal, or to a file instead."""

from __future__ import annotations

from collections import deque

from rich.console import Console
from rich.text import Text

__all__ = ["PrefixedLog", "output"]

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_FILE_COLUMNS = 200  # a file has no width; rich would use 80 and shorten the figures of a table


def output() -> Console:
    """Standard output, for tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_COLUMNS)


class PrefixedLog:
    """Lines of several processes, each with the name of its process in front.

    Prints lines as they come if `printing` is on. Also keeps the last ones, for a live view.
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
