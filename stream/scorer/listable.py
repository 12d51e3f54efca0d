"""Ranks the items that may be listed: the model's order without unlisted items and without those hidden from a user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from model.batch import Histories
from model.ranker import Hidden, Ranked
from model.recommend import Recommender
from stream.scorer.requests import Request
from stream.wire.catalogue import Catalogue, Unlisted
from stream.wire.hidden import hidden_items
from stream.wire.meaning import EventKinds
from stream.wire.packing import pack

__all__ = ["Listed", "rank_listable", "unlisted"]

_SPARE = 20  # items that are ranked beyond the length of a list, to replace unlisted ones


Terms = Callable[[np.ndarray], np.ndarray]


class Listed(NamedTuple):
    """What a model lists for B users."""

    histories: Histories  # of these users, as the model reads them
    ranked: Ranked
    terms: Terms  # `Recommender.terms` of these users


def unlisted(request: Request, kinds: EventKinds, event_ms: int, catalogue: Catalogue, now_ms: int) -> Unlisted:
    """The items that may not be listed to a user. `event_ms` is the present in event time: it decides which items met
    are hidden. `now_ms` is the present by the clock: it decides which items' time has begun or ended."""
    return Unlisted(hidden_items(request.history, kinds, event_ms), catalogue, request.user, now_ms)


def rank_listable(
    model: Recommender,
    requests: Sequence[Request],
    kinds: EventKinds,
    event_ms: int,
    catalogue: Catalogue,
    now_ms: int,
    count: int,
    *,
    with_terms: bool = False,
) -> Listed:
    """Lists of at most `count` items. With `with_terms`, a later call of `terms` costs less."""
    histories, hidden = pack(model.items, [request.history for request in requests], kinds, event_ms)
    hidden = _with_hidden_from(model, histories, hidden, requests, catalogue)
    asked = count + _SPARE if catalogue.restricts else count
    terms: Terms
    if with_terms:
        ranked, terms = model.rank_with_terms(histories, asked, hidden)
    else:
        ranked, terms = model.rank(histories, asked, hidden), partial(model.terms, histories)
    if not catalogue.restricts:
        return Listed(histories, ranked, terms)
    allowed = catalogue.allowed(model.items, now_ms)
    kept, short = _only(ranked, allowed, count)
    if len(short):
        _rank_again(model, histories, hidden, allowed, count, kept, short)
    return Listed(histories, kept, terms)


def _with_hidden_from(
    model: Recommender,
    histories: Histories,
    hidden: Hidden | None,
    requests: Sequence[Request],
    catalogue: Catalogue,
) -> Hidden | None:
    if not catalogue.hides:
        return hidden
    rows: list[int] = []
    names: list[str] = []
    for row, request in enumerate(requests):
        for item in catalogue.hidden_from(request.user):
            rows.append(row)
            names.append(item)
    if not rows:
        return hidden
    columns = model.items.columns(names)
    found = hidden or Hidden.met(histories)
    known = columns >= 0
    return Hidden(np.concatenate([found.rows, np.array(rows)[known]]), np.concatenate([found.columns, columns[known]]))


def _only(ranked: Ranked, allowed: np.ndarray, count: int) -> tuple[Ranked, np.ndarray]:
    """(The first `count` allowed items of each row; the short rows for which the model may know further items)."""
    columns, scores = ranked.columns, ranked.scores
    fits = (columns >= 0) & allowed[columns]
    place = np.cumsum(fits, axis=1) - 1
    row, column = np.nonzero(fits & (place < count))
    kept = Ranked(np.full((len(columns), count), -1, np.int64), np.full((len(columns), count), -np.inf, np.float32))
    kept.columns[row, place[row, column]] = columns[row, column]
    kept.scores[row, place[row, column]] = scores[row, column]
    return kept, np.flatnonzero((place[:, -1] + 1 < count) & (columns[:, -1] >= 0))


def _rank_again(
    model: Recommender,
    histories: Histories,
    hidden: Hidden | None,
    allowed: np.ndarray,
    count: int,
    kept: Ranked,
    short: np.ndarray,
) -> None:
    """Fill the rows `short` of `kept`: rank them again with every unlisted item hidden. Exact, but it costs more."""
    found = hidden or Hidden.met(histories)
    place = np.full(len(histories), -1)
    place[short] = np.arange(len(short))
    inside = place[found.rows] >= 0
    never = np.flatnonzero(~allowed)
    rows = np.concatenate([place[found.rows[inside]], np.repeat(np.arange(len(short)), len(never))])
    columns = np.concatenate([found.columns[inside], np.tile(never, len(short))])
    again = model.rank(histories.select(short), count, Hidden(rows, columns))
    kept.columns[short], kept.scores[short] = again.columns, again.scores
