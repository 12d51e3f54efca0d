"""Settings of the lists for pages without a user."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ItemListsConfig"]

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class ItemListsConfig:
    list_items: int = 20
    """Length of a list."""
    half_life_ms: int = 2 * _DAY_MS
    """Event time in which an interaction comes to count half for what is trending."""
    new_ms: int = 30 * _DAY_MS
    """Event time for which an item is new after it was first met."""
    categories: int = 1_000
    """Most categories that have a list of what is trending in them; of more, those with the most interactions."""
    similar: int = 100_000
    """Most items that have a list of similar ones; of more, those with the most interactions. 0: none has."""
    lists_per_second: int = 200
    """Most lists that are written in a second."""

    def __post_init__(self) -> None:
        for name in ("list_items", "half_life_ms", "new_ms", "lists_per_second"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("categories", "similar"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
