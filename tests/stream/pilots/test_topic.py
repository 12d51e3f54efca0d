"""The topic `pilots`, record by record: what holds is the pilot with its stops."""

import msgspec

from stream.pilots.counts import PilotTally
from stream.pilots.pilot import ListSettings, Pilot, Stop, Variant, started
from stream.pilots.topic import Pilots

B = Variant("b", ListSettings("popularity"))


def pilot(name: str = "p", at_ms: int = 1) -> Pilot:
    return started(name, [B], 0.1, 0.05, at_ms)


def taken(*records: tuple[str, bytes | None]) -> Pilots:
    pilots = Pilots()
    for key, value in records:
        pilots.take(key.encode(), value)
    return pilots


def encoded(one: object) -> bytes:
    return msgspec.json.encode(one)


def test_a_stop_and_a_step_of_the_operator_never_undo_each_other() -> None:
    step, stop = ("pilot p", encoded(pilot().at(0.5, 5))), ("stop p b", encoded(Stop("harm", 4)))
    for records in ((step, stop), (stop, step)):
        found = taken(("pilot p", encoded(pilot())), *records)["p"]
        assert (found.share, found.stage, found.stops) == (0.5, 2, {"b": Stop("harm", 4)})
        assert not found.running


def test_the_one_that_was_started_last_runs_and_an_ended_one_does_not() -> None:
    two = ("pilot p", encoded(pilot())), ("pilot q", encoded(pilot("q", 2)))
    pilots = taken(*two)
    assert pilots.running is not None
    assert (pilots.running.name, pilots.names) == ("q", ["p", "q"])
    over = taken(*two, ("pilot q", encoded(pilot("q", 2).end("done", 3))), ("pilot p", encoded(pilot().end("done", 3))))
    assert over.running is None


def test_a_later_record_of_the_same_scorer_replaces_its_earlier_one() -> None:
    tally, records = PilotTally("w"), []
    for _ in range(2):
        tally.outcome("p", 1, "b", 3, 1)
        (counts,) = tally.take()
        records.append(("counts p 1 w", counts.encode()))
    (held,) = taken(*records, records[-1]).counts("p")
    assert sum(held.ranks["b"]) == 2
    assert taken(*records, ("counts p 1 w", None)).counts("p") == []
    lean = Pilots(counted=False)
    lean.take(b"counts p 1 w", records[0][1])
    assert lean.counts("p") == []


def test_what_cannot_be_read_says_nothing_and_stops_nobody() -> None:
    later = encoded(pilot()).replace(b'"ranking"', b'"variety"')  # a setting of a later release
    good = "pilot q", encoded(pilot("q"))
    for bad in (("pilot p", later), ("pilot p", b"{"), ("counts p 1 w", b"\xc1"), ("stop p b", b"[]"), ("", b"x")):
        pilots = taken(bad, good)
        assert pilots.names == ["q"]
    assert taken(("pilot p", encoded(pilot())), ("pilot p", later)).running is None


def test_a_pilot_survives_its_own_encoding() -> None:
    one = pilot().at(0.5, 5)
    assert taken(("pilot p", encoded(one)))["p"] == one
