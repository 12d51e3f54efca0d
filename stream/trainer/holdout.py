"""Which interactions of a round are kept from the candidate, to judge it by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from state.history import History
from stream.trainer.history_view import Changed

__all__ = ["Question", "hold_out"]


class Question(NamedTuple):
    """One user's history as it was at the cut, and the items that came after it."""

    known: History
    answer: tuple[str, ...]


def hold_out(
    changed: Mapping[bytes, tuple[History, Changed]], share: float, least_users: int = 0
) -> tuple[dict[bytes, History], dict[bytes, Question]]:
    """Split off the newest `share` of the new interactions: (what every changed user may teach, the questions).

    Only interactions that no published model learnt are held out (later than `seen_ms`), so that the live model answers
    as blindly as the candidate; and only of users who keep some history, since nothing but popularity can answer for
    others. One moment cuts all users, as the future does. Where users come, act and leave within minutes, hardly anyone
    stands on both sides of a moment: when fewer than `least_users` do, each user's own newest are held out instead.
    """
    new = np.fromiter(_new_times_ms(changed.values()), dtype=np.int64)
    if not len(new):
        return {user: history for user, (history, _) in changed.items()}, {}
    cut_ms = int(np.quantile(new, 1 - share, method="lower"))
    known, questions = _split(changed, lambda times_ms: sum(time_ms > cut_ms for time_ms in times_ms))
    if len(questions) >= least_users:
        return known, questions
    return _split(changed, lambda times_ms: max(round(share * len(times_ms)), 1))


def _new_times_ms(changed: Iterable[tuple[History, Changed]]) -> Iterator[int]:
    return (time_ms for history, change in changed for time_ms in history.times_ms if time_ms > change.seen_ms)


def _split(
    changed: Mapping[bytes, tuple[History, Changed]], held_of: Callable[[Sequence[int]], int]
) -> tuple[dict[bytes, History], dict[bytes, Question]]:
    """`held_of` says how many of a user's new interactions, given by their times newest first, are held out."""
    known: dict[bytes, History] = {}
    questions: dict[bytes, Question] = {}
    for user, (history, change) in changed.items():
        new = [time_ms for time_ms in history.times_ms if time_ms > change.seen_ms]  # newest first: a prefix
        held = held_of(new) if new else 0
        rest = History(history.items[held:], history.times_ms[held:], history.strengths[held:])
        if rest.items:
            known[user] = rest
            if held:
                questions[user] = Question(rest, history.items[:held])
    return known, questions
