"""The reasons for the items of a list: for each item the interactions that raised its score most in the model.

The reasons are exact. Where the catalogue is small they cost more than the ranking itself
(tests/benchmarks/bench_model_explain.py prints how much), so they are off unless the setting `explain` asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from model.explain import reasons
from model.recommend import Recommender
from stream.scorer.requests import Request
from stream.wire.meaning import EventKinds
from stream.wire.packing import pack
from stream.wire.records import Reason, ScoredItem

__all__ = ["with_reasons"]

log = logging.getLogger(__name__)

TRIED = 8  # newest interactions that may be named

Items = tuple[ScoredItem, ...]


def with_reasons(
    model: Recommender,
    requests: Sequence[Request],
    lists: Sequence[Items],
    kinds: EventKinds,
    event_ms: int,
    count: int,
) -> list[Items]:
    """The same lists, one for each request, with up to `count` reasons of each item that `model` ranked."""
    width = max(map(len, lists), default=0)
    if not width:
        return list(lists)
    try:
        histories, _ = pack(model.items, [request.history for request in requests], kinds, event_ms)
        columns = np.full((len(lists), width), -1, dtype=np.int64)
        for row, items in enumerate(lists):
            columns[row, : len(items)] = model.items.columns([scored.item for scored in items])
        found = reasons(model, histories, columns, count, TRIED)
    except Exception as error:  # noqa: BLE001 - a list without reasons is a list
        log.warning("model %s does not say why: %s", model.version, error)
        return list(lists)
    ids, explained = model.items.ids, []
    for row, items in enumerate(lists):
        met = histories.columns[histories.offsets[row] : histories.offsets[row + 1]].tolist()
        pairs = zip(items, found.places[row].tolist(), found.amounts[row].tolist(), strict=False)
        explained.append(
            tuple(
                ScoredItem(
                    scored.item,
                    scored.score,
                    tuple(
                        Reason(ids[met[place]], amount)
                        for place, amount in zip(places, amounts, strict=True)
                        if place >= 0
                    ),
                )
                for scored, places, amounts in pairs
            )
        )
    return explained
