"""The running pilot, as a scorer sees it: which user is in which variant, and the counts of users and outcomes.

`stream.scorer.list_maker` changes a list as the pilot's variant demands. The monitor and the metrics are given the list
that the user would have been shown without the pilot, so that a bad variant does not look like a fault of the model.
"""

from __future__ import annotations

from collections.abc import Iterable

from stream.pilots.counts import PilotTally
from stream.pilots.pilot import Pilot, place
from stream.pilots.topic import Pilots, PilotSender
from stream.scorer.prequential import ShownList, judge_event, rank_of
from stream.wire.records import InPilot, InputRecord, NewInteraction

__all__ = ["PilotIntake", "PilotLists"]


class PilotLists:
    """`current` may be replaced from another thread: a list belongs to the pilot that was current when it was made."""

    def __init__(self, worker: str) -> None:
        self.current: Pilot | None = None
        self.tally = PilotTally(worker)

    def shown(self, pilot: InPilot, before: InPilot | None) -> None:
        """A list of `pilot` was delivered; `before` is the pilot of the user's last list. Each user is counted once in
        each stage."""
        if pilot != before:
            self.tally.user(pilot.name, pilot.stage, pilot.variant)

    def counts(self, shown: ShownList | None) -> bool:
        """Whether the outcome of this list counts: it was made for the pilot that runs now."""
        current, pilot = self.current, None if shown is None else shown.pilot
        return current is not None and pilot is not None and pilot.name == current.name

    def judge(
        self, user: bytes, event: NewInteraction, shown: ShownList, arrived_ms: int, oldest_ms: int, hidden: bool
    ) -> None:
        """Judge a list that counts by a positive event. The rule is the same for every variant: an item that no model
        knows is a miss of all lists."""
        pilot = shown.pilot
        judgement = judge_event(event, shown, arrived_ms, None, oldest_ms, hidden=hidden, positive=True)
        if pilot is None or not judgement.rank:
            return
        twin = _rank(event.item, shown.shadow) if shown.in_variant and shown.shadow else None
        rank = _rank(event.item, shown.items)
        self.tally.outcome(pilot.name, pilot.stage, pilot.variant, place(pilot.name, user)[1], rank, twin)


_MISS = 1 << 30  # rank of a miss: the rank one past the end of a short list would look good


def _rank(item: str, items: tuple[str, ...]) -> int:
    rank = rank_of(item, items)
    return rank if rank <= len(items) else _MISS


class PilotIntake:
    """Takes in the records of `pilots`, on the thread of their follower, and sets `PilotLists.current`."""

    def __init__(self, lists: PilotLists, sender: PilotSender) -> None:
        self._lists, self._sender = lists, sender
        self._pilots = Pilots(counted=False)

    def __call__(self, records: Iterable[InputRecord]) -> None:
        for record in records:
            self._pilots.take(record.key, record.value)
        running = self._pilots.running
        if running is not None:
            self._sender.open()  # on this thread, because opening takes a while
        self._lists.current = running
