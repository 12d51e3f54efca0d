"""The life of the models in service, as one state machine.

                promote                    begin_canary
        none -----------> live or rolled back -----------> canary
                            ^    |     ^   ^                |  |
                    promote |    |     |   +----------------+  |
                            +----+     |   promote (to live),  |
                                       |   end_canary (back)   |
        live --------------------------+-----------------------+
                        roll_back: to rolled back

    none          no model is live
    live          one model answers everybody; `previous` is kept ready to come back
    canary        a new model answers a share of the users beside the live one
    rolled back   the previous model is live again; there is no further way back until the next promotion

A step changes two things. The slots of the topic `models` say which models the scorers use; the phase follows from
them. The state of the closed loop says which model is on probation, what is quarantined and whether promotions are
closed. `_move` makes every step in the same order:

    1. the intent is saved with the state of the loop
    2. the slots move, in one transaction of Kafka
    3. the state of the loop moves, and is saved without the intent

`recover` repairs what a crash left:

    before 1      nothing happened
    after 1       nothing was announced. A promotion is dropped: its candidate is an artifact that nobody names, and the
                  next round learns the same. A rollback is carried out, because the evidence for it still stands. A
                  canary that was to begin or to end has no judge any more: it is ended if it is there.
    inside 2      opening the slots commits or aborts the transaction, so this is "after 1" or "after 2"
    after 2       step 3 is done with what the intent says: event time and coverage are those of the decision
    after 3       nothing is left to do
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from ops.labels import Trigger
from ops.monitor.closed_loop import ClosedLoop
from ops.monitor.loop_state import Move, Step
from stream.registry.slots import Changes, NoWayBack, SlotWriter, promotion, rollback
from stream.trainer.loop_file import LoopFile
from stream.wire.records import CANARY_SLOT, Announcement

__all__ = ["CRASH_POINTS", "IllegalMove", "ModelLifecycle", "Phase"]

log = logging.getLogger(__name__)

Phase = Literal["none", "live", "canary", "rolled back"]

# Where tests kill the trainer: after 1, inside 2, after 2, after 3.
CRASH_POINTS = ("intended", "sent", "announced", "decided")

_FROM: Mapping[Step, tuple[Phase, ...]] = {
    "promote": ("none", "live", "canary", "rolled back"),
    "begin_canary": ("live", "rolled back"),
    "end_canary": ("canary",),
    "roll_back": ("live", "canary"),
}


class IllegalMove(RuntimeError):
    """A step that the state machine above does not have: a fault of the program, not of its surroundings."""


class ModelLifecycle:
    """`crash` is called with each of `CRASH_POINTS` as it is passed."""

    def __init__(
        self, slots: SlotWriter, loop: ClosedLoop, file: LoopFile, crash: Callable[[str], None] = lambda point: None
    ) -> None:
        self.slots, self.loop, self._file, self.crash = slots, loop, file, crash

    @property
    def phase(self) -> Phase:
        live, previous = self.slots.live, self.slots.previous
        if live is None:
            return "none"
        if self.slots.canary is not None:
            return "canary"
        return "rolled back" if previous is not None and previous.version == live.version else "live"

    # -- steps ---------------------------------------------------------------------------------------------------------

    def promote(self, announcement: Announcement, trigger: Trigger) -> None:
        """This model, a candidate or the canary, answers everybody from now on."""
        self._move("promote", announcement.version, promotion(self.slots.current, announcement), trigger)

    def begin_canary(self, announcement: Announcement, share: float) -> None:
        """This model answers a share of the users beside live."""
        canary = msgspec.structs.replace(announcement, share=share)
        self._move("begin_canary", announcement.version, {CANARY_SLOT: canary})

    def end_canary(self) -> None:
        """Live answers everybody again."""
        canary = self.slots.canary
        self._move("end_canary", "" if canary is None else canary.version, {CANARY_SLOT: None})

    def roll_back(self) -> tuple[Announcement, Announcement]:
        """The previous model is live again; returns (live, retired). Raises `NoWayBack`."""
        changes = rollback(self.slots.current)
        good = changes["live"]
        assert good is not None
        self._move("roll_back", good.version, changes)
        return self.slots.current["live"], self.slots.current["retired"]

    def _move(self, step: Step, version: str, changes: Changes, trigger: Trigger = "schedule") -> None:
        if self.phase not in _FROM[step]:
            raise IllegalMove(f"{step} is no step from phase {self.phase!r}")
        move = self.loop.intend(step, version, trigger)
        self.save()
        self.crash("intended")
        self.slots.move(changes, lambda: self.crash("sent"))
        self.crash("announced")
        self._conclude(move)

    def _conclude(self, move: Move) -> None:
        self.loop.moved(move)
        self.save()
        self.crash("decided")

    def save(self) -> None:
        """Keep what the closed loop decided since the last time."""
        self._file.save(self.loop.decisions.state)

    # -- what others did -----------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """At the start of the process: finish or drop the step that a crash interrupted. See above."""
        move, live = self.loop.decisions.state.moving, self.slots.live
        if move is not None and move.step in ("promote", "roll_back"):
            if live is not None and live.version == move.version:
                log.warning("%s of %s was announced before the last end; it is noted now", move.step, move.version)
                self._conclude(move)
            elif move.step == "roll_back" and live is not None and live.version == self.loop.decisions.state.live:
                log.warning("the rollback to %s was decided before the last end; it is carried out now", move.version)
                try:
                    self.roll_back()
                except NoWayBack as error:
                    log.error("no rollback: %s", error)
            else:
                log.warning("%s of %s was not announced before the last end, and is dropped", move.step, move.version)
        self.loop.decisions.state.moving = None
        if self.phase == "canary":
            self.end_canary()
        self.save()

    def follow(self) -> Literal["", "moved", "rolled back"]:
        """What others did to the live slot since the last time: nothing, a move, or a rollback by hand."""
        live, previous, retired = self.slots.live, self.slots.previous, self.slots.retired
        state = self.loop.decisions.state
        version = "" if live is None else live.version
        if version == state.live:
            return ""
        by_hand = retired is not None and retired.version == state.live and version == state.previous
        earlier = "" if previous is None or previous.version == version else previous.version
        if state.live:
            log.warning("the live model moved from %s to %s, not by this trainer", state.live, version or "none")
        self.loop.moved_by_hand(version, earlier, by_hand)
        self.save()
        return "rolled back" if by_hand else "moved"
