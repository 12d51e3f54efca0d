"""What is counted, summed over scorers, and said of a pilot."""

import json

import msgspec
import numpy as np
import pytest

from stream.pilots.counts import RANKS, Counts, PilotTally, add_up
from stream.pilots.pilot import CONTROL, ListSettings, Pilot, Stop, Variant, started
from stream.pilots.report import PilotReport, report
from tests.support.pilot_counts import counted

B = Variant("b", ListSettings("popularity"))
C = Variant("c", ListSettings(list_items=5))


def pilot(*variants: Variant, share: float = 0.5) -> Pilot:
    return started("p", variants or (B,), share, 0.05, 1_000)


def test_counts_of_scorers_add_up_and_only_changed_stages_are_written() -> None:
    one, two = PilotTally("one"), PilotTally("two")
    one.outcome("p", 1, "b", 7, 3, 1)
    one.outcome("p", 1, "b", 7, 3)
    two.outcome("p", 1, "b", 7, 3)
    two.outcome("p", 1, "b", 8, RANKS + 1)
    two.outcome("p", 2, CONTROL, 8, 1)
    two.user("p", 1, "b")
    totals = add_up([*one.take(), *two.take()])
    assert list(totals) == [1, 2]
    assert totals[1].ranks["b"][7, 3] == 3
    assert totals[1].ranks["b"][8, 0] == 1
    assert (totals[1].paired["b"].sum(), totals[1].twins["b"][7, 1]) == (1, 1)
    assert totals[1].users == {"b": 1}
    assert totals[2].ranks[CONTROL].sum() == 1
    assert one.take() == []
    two.outcome("p", 2, CONTROL, 8, 1)
    (again,) = two.take()
    assert add_up([again])[2].ranks[CONTROL].sum() == 2  # running totals, which replace those before


def test_counts_of_another_size_are_refused() -> None:
    record = Counts("w", "p", 1, {}, {"b": [0] * 11}, {}, {})
    with pytest.raises(msgspec.DecodeError):
        Counts.decode(record.encode())


def test_nothing_is_said_of_a_pilot_that_has_just_begun() -> None:
    found = report(pilot(), [])
    assert [arm.verdict for arm in found.variants] == ["too few outcomes"]
    assert (found.ratio, found.state) == (None, "running")


@pytest.mark.parametrize(
    ("rate", "verdict", "harm"), [(0.5, "better", False), (0.4, "no difference shown", False), (0.3, "worse", True)]
)
def test_a_verdict_is_by_the_hit_rate_against_control(rate: float, verdict: str, harm: bool) -> None:
    found = report(pilot(), counted({CONTROL: 0.4, "b": rate}, {CONTROL: 500, "b": 500}))
    (b,) = found.variants
    assert b.verdict == verdict
    assert bool(b.harm) == harm
    interval = b.differences["hit rate"]
    assert interval is not None
    assert interval.low < rate - 0.4 < interval.high
    assert b.rates["NDCG"] == pytest.approx(rate / np.log2(3), abs=0.02)
    assert found.ratio is not None
    assert found.ratio.fits


def test_lists_that_control_would_have_shown_show_harm_and_prove_nothing_good() -> None:
    """Events that the variant's own users were asked twice; control's users say nothing yet."""
    users = {CONTROL: 500, "b": 500}
    for rate, verdict in ((0.5, "too few outcomes"), (0.3, "worse")):
        records = counted({CONTROL: 0.4, "b": rate}, users)
        records = [msgspec.structs.replace(record, ranks={"b": record.ranks["b"]}) for record in records]
        (b,) = report(pilot(), records).variants
        assert b.verdict == verdict
        assert b.paired["hit rate"] is not None


def test_users_that_are_not_split_as_declared_are_told_of() -> None:
    fair, unfair = ({CONTROL: 900, "b": number} for number in (100, 160))
    one = pilot(share=0.1)
    for users, fits in ((fair, True), (unfair, False)):
        found = report(one, counted({}, users))
        assert found.ratio is not None
        assert found.ratio.fits == fits
        assert found.ratio.freedom == 1


def test_each_stage_is_compared_with_its_own_share() -> None:
    one = pilot(share=0.1).at(0.5, 2_000)
    records = [*counted({}, {CONTROL: 900, "b": 100}), *counted({}, {CONTROL: 500, "b": 500}, stage=2)]
    found = report(one, records)
    assert found.ratio is not None
    assert found.ratio.freedom == 2
    assert found.ratio.p == pytest.approx(1)


def test_a_stopped_variant_is_worse_for_ever_and_is_left_out_of_the_split() -> None:
    one = msgspec.structs.replace(pilot(B, C), stops={"c": Stop("harm was shown", 2_000)})
    records = counted({CONTROL: 0.4, "b": 0.4, "c": 0.4}, {CONTROL: 1_000, "b": 500, "c": 90})
    found = report(one, records)
    assert [arm.verdict for arm in found.variants] == ["no difference shown", "worse"]
    assert found.variants[1].stopped == "harm was shown"
    assert found.ratio is not None
    assert found.ratio.fits
    assert found.state == "running"


def test_several_variants_have_wider_intervals() -> None:
    records = counted({CONTROL: 0.4, "b": 0.5, "c": 0.4}, {})
    widths = []
    for one in (pilot(B), pilot(B, C)):
        found = report(one, records)
        interval = found.variants[0].differences["hit rate"]
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert widths[0] < widths[1] < 1.2 * widths[0]
    assert report(pilot(B, C), []).confidence == pytest.approx(1 - 0.05 / 4)


def test_a_program_reads_the_same() -> None:
    found: PilotReport = report(pilot(), counted({CONTROL: 0.4, "b": 0.5}, {CONTROL: 500, "b": 500}))
    read = json.loads(json.dumps(found.as_json()))
    assert read["pilot"] == "p"
    control, b = read["variants"]
    assert control["variant"] == "control"
    assert (b["verdict"], b["lists"], b["users"]) == ("better", "ranking=popularity", 500)
    assert b["against_control"]["hit_rate"]["low"] > 0
    assert b["same_events"]["ndcg"]["mean"] == pytest.approx(0.1 / np.log2(3), abs=0.02)
    assert read["sample_ratio"]["fits"]
