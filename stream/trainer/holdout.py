"""Chooses the interactions of a round that the candidate is not trained on, but judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from state.codec import encode, read
from state.history import EMPTY, History, merge_entries
from stream.trainer.changed_users import Changed
from stream.wire.hidden import hidden_items
from stream.wire.meaning import ALL_ALIKE, EventKinds

__all__ = ["Question", "hold_out"]


class Question(NamedTuple):
    """One user's history as it was at the cut, and the items that came after it."""

    known: History
    answer: tuple[str, ...]


def hold_out(
    changed: Mapping[bytes, tuple[History, Changed]],
    share: float,
    least_users: int = 0,
    kinds: EventKinds = ALL_ALIKE,
) -> tuple[dict[bytes, History], dict[bytes, Question]]:
    """Split off the newest `share` of the new interactions. Returns (the rest of every changed user's history, the
    questions).

    Only interactions that no published model learnt are held out (later than `seen_ms`), so that the live model has not
    seen them either. Only users who keep some history are asked about, because for others only popularity can answer.
    All histories are cut at one moment, as in service, where a model knows the past and must predict the future. Where
    users come, act and leave within minutes, hardly any user has interactions on both sides of that moment: when fewer
    than `least_users` have, each user's own newest interactions are held out instead.
    """
    new = np.fromiter(_new_times_ms(changed.values()), dtype=np.int64)
    if not len(new):
        return {user: history for user, (history, _) in changed.items()}, {}
    cut_ms = int(np.quantile(new, 1 - share, method="lower"))
    known, questions = _split(changed, kinds, lambda times_ms: sum(time_ms > cut_ms for time_ms in times_ms))
    if len(questions) >= least_users:
        return known, questions
    return _split(changed, kinds, lambda times_ms: max(round(share * len(times_ms)), 1))


def _new_times_ms(changed: Iterable[tuple[History, Changed]]) -> Iterator[int]:
    return (time_ms for history, change in changed for time_ms in history.times_ms if time_ms > change.seen_ms)


def _split(
    changed: Mapping[bytes, tuple[History, Changed]], kinds: EventKinds, held_of: Callable[[Sequence[int]], int]
) -> tuple[dict[bytes, History], dict[bytes, Question]]:
    """`held_of` returns how many of a user's new interactions, given by their times newest first, are held out."""
    known: dict[bytes, History] = {}
    questions: dict[bytes, Question] = {}
    for user, (history, change) in changed.items():
        new = [time_ms for time_ms in history.times_ms if time_ms > change.seen_ms]  # newest first: a prefix
        held = held_of(new) if new else 0
        rest = _before(history, held)
        if rest.items:
            known[user] = rest
            answer = _answer(history, held, rest, kinds)
            if answer:
                questions[user] = Question(rest, answer)
    return known, questions


def _before(history: History, held: int) -> History:
    """The history without the last interactions with its newest `held` items. Earlier interactions with these items
    stay."""
    if not held:
        return history
    if not history.earlier:
        kinds = history.kinds[held:]
        return history._replace(
            items=history.items[held:],
            times_ms=history.times_ms[held:],
            strengths=history.strengths[held:],
            kinds=kinds if any(kinds) else (),
        )
    cut_ms, gone = history.times_ms[held - 1], set(history.items[:held])
    entries = [entry for entry in history.entries() if entry.item not in gone or entry.time_ms < cut_ms]
    rest = merge_entries(EMPTY, entries, len(history.items) + 1, history.forgotten_ms)
    return rest._replace(traces=history.traces)


def _answer(history: History, held: int, known: History, kinds: EventKinds) -> tuple[str, ...]:
    """Right answers: the items of held-out interactions that are positive, if they could have been listed before."""
    event_kinds = history.kinds or ("",) * len(history.items)
    positive = [
        item
        for item, kind, weight in zip(history.items[:held], event_kinds, history.strengths, strict=False)
        if kinds.positive(kind, weight)
    ]
    if not positive or not (known.earlier or history.earlier or known.traces):
        return tuple(positive)
    hidden = hidden_items(read(encode(known)), kinds, history.times_ms[held - 1])
    return tuple(item for item in positive if item not in hidden)
