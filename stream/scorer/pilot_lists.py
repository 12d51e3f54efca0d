"""The pilot that runs, as a scorer knows it: who is in which variant, and what is counted of it.

What a pilot's variant makes of a list is the business of `stream.scorer.list_maker`. Everything else that looks at
lists, monitor and metrics, is told of the list that the user would have been shown without the pilot, so that a bad
variant is no fault of the model.
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
    """`current` may be replaced from another thread: every list is made and marked by what it was when it was made."""

    def __init__(self, worker: str) -> None:
        self.current: Pilot | None = None
        self.tally = PilotTally(worker)

    def shown(self, pilot: InPilot, before: InPilot | None) -> None:
        """A list is out; `before`: that of the user's last list. Users are counted once in each stage."""
        if pilot != before:
            self.tally.user(pilot.name, pilot.stage, pilot.variant)

    def counts(self, shown: ShownList | None) -> bool:
        """Is the list one whose outcome counts?"""
        current, pilot = self.current, None if shown is None else shown.pilot
        return current is not None and pilot is not None and pilot.name == current.name

    def judge(
        self, user: bytes, event: NewInteraction, shown: ShownList, arrived_ms: int, oldest_ms: int, hidden: bool
    ) -> None:
        """A positive event, asked of a list that counts. Whatever made the list, it is asked by the same rule: an item
        that no model knows is a miss of everybody."""
        pilot = shown.pilot
        judgement = judge_event(event, shown, arrived_ms, None, oldest_ms, hidden=hidden, positive=True)
        if pilot is None or not judgement.rank:
            return
        twin = _rank(event.item, shown.shadow) if shown.in_variant and shown.shadow else None
        rank = _rank(event.item, shown.items)
        self.tally.outcome(pilot.name, pilot.stage, pilot.variant, place(pilot.name, user)[1], rank, twin)


_MISS = 1 << 30  # one past a short list would look like a good rank


def _rank(item: str, items: tuple[str, ...]) -> int:
    rank = rank_of(item, items)
    return rank if rank <= len(items) else _MISS


class PilotIntake:
    """Takes in the records of `pilots`, on the thread of their follower, and tells the lists."""

    def __init__(self, lists: PilotLists, sender: PilotSender) -> None:
        self._lists, self._sender = lists, sender
        self._pilots = Pilots(counted=False)

    def __call__(self, records: Iterable[InputRecord]) -> None:
        for record in records:
            self._pilots.take(record.key, record.value)
        running = self._pilots.running
        if running is not None:
            self._sender.open()  # here, because it takes a while
        self._lists.current = running
