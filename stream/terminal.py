"""Lines of several processes on one terminal, each behind its name."""

from __future__ import annotations

from collections import deque

from rich.console import Console
from rich.text import Text

__all__ = ["PrefixedLog"]

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")


class PrefixedLog:
    """Prints lines as they come, or keeps the last ones for a live view when `printing` is off."""

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
