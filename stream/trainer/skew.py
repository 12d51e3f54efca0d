"""Do the scorers recommend what the trainer would? Their newest lists, ranked again from the trainer's own histories.

Rounding may swap neighbours of nearly equal score, so a list agrees when its first ten are among the trainer's first
twenty. Wrong vocabularies, weights or histories move far more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from kafka import TopicPartition

from model.recommend import Recommender
from state.history import History
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.trainer.exam import pack
from stream.wire.records import Recommendation

__all__ = ["PublishedLists", "disagreement"]

_FIRST, _AMONG = 10, 20
_LEAST_LISTS = 100  # to say anything
_recommendation = msgspec.json.Decoder(Recommendation)


class PublishedLists:
    """The newest lists on `recommendations`, `each` of every partition."""

    def __init__(self, connection: KafkaConnection, topic: str, partitions: int, each: int = 50) -> None:
        self._partitions, self._each = [TopicPartition(topic, number) for number in range(partitions)], each
        self._reader = TopicReader(connection)
        self._reader.assign(self._partitions)

    def newest(self, timeout_seconds: float = 1.0) -> dict[int, list[Recommendation]]:
        """By partition. Raises `KafkaError`."""
        beginnings = self._reader.beginnings(self._partitions)
        for tp, end in self._reader.ends(self._partitions).items():
            self._reader.seek(tp, max(end - self._each, beginnings[tp]))
        polled = self._reader.poll(timeout_seconds, self._each * len(self._partitions))
        return {
            tp.partition: [_recommendation.decode(record.value) for record in records if record.value is not None]
            for tp, records in polled.items()
        }

    def differing(
        self, model: Recommender, histories: Callable[[int, list[bytes]], Mapping[bytes, History]]
    ) -> float | None:
        """The share of them that `model` would not give to the users' `histories` of a partition; None for too few.

        Raises `KafkaError` and `ModelError`.
        """
        compared = differing = 0
        for number, lists in self.newest().items():
            found = disagreement(lists, histories(number, [shown.user.encode() for shown in lists]), model)
            compared, differing = compared + found[0], differing + found[1]
        return differing / compared if compared >= _LEAST_LISTS else None

    def close(self) -> None:
        self._reader.close()


def disagreement(
    lists: Sequence[Recommendation], histories: Mapping[bytes, History], model: Recommender
) -> tuple[int, int]:
    """(lists compared, lists that differ): those of `model` whose history is known as it was then."""
    asked = [
        (shown, history)
        for shown in {shown.user: shown for shown in lists}.values()
        if shown.model == model.version
        and (history := histories.get(shown.user.encode())) is not None
        and history.newest_ms == shown.as_of
    ]
    if not asked:
        return 0, 0
    ranked = model.rank(pack(model.items, [history for _, history in asked]), _AMONG).columns.tolist()
    differ = 0
    for (shown, _), columns in zip(asked, ranked, strict=True):
        own = {model.items.ids[column] for column in columns if column >= 0}
        differ += not {scored.item for scored in shown.items[:_FIRST]} <= own
    return len(asked), differ
