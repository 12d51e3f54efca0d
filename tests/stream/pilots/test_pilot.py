"""Who is in which variant, and the steps of a pilot's life."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pilots.pilot import AS_SERVED, BUCKETS, ListSettings, Pilot, PilotError, Stop, Variant, place, started
from stream.scorer.models import in_canary_share

B = Variant("b", ListSettings("popularity"))
C = Variant("c", ListSettings(list_items=5))
USERS = [b"u%d" % number for number in range(20_000)]


def pilot(share: float = 0.2, *variants: Variant) -> Pilot:
    return started("short-lists", variants or (B, C), share, 0.02, 1_000)


def test_variants_share_the_declared_part_of_the_users_equally_and_control_has_the_rest() -> None:
    names = [found.name for user in USERS if (found := pilot(0.2).variant_of(user))]
    for name, share in (("b", 0.1), ("c", 0.1), ("control", 0.8)):
        assert names.count(name) / len(USERS) == pytest.approx(share, abs=0.01)


@given(user=st.binary(max_size=20), shares=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)))
def test_whoever_is_in_a_variant_stays_when_the_share_grows(user: bytes, shares: tuple[float, float]) -> None:
    small, large = sorted(shares)
    before, after = pilot(small).variant_of(user), pilot(large).variant_of(user)
    assert before in (AS_SERVED, after)


def test_at_the_last_stage_nobody_is_in_control() -> None:
    assert {found.name for user in USERS[:2_000] if (found := pilot(1.0).variant_of(user))} == {"b", "c"}


def test_variant_bucket_canary_and_another_pilot_are_independent() -> None:
    """CRC32 with other salts would not do: it tells the same users apart by the same bits."""
    mine = [place("one", user) for user in USERS]
    inside = {user for user, (at, _) in zip(USERS, mine, strict=True) if at < 0.5}
    for chosen in (
        {user for user in USERS if in_canary_share(user, 0.5)},
        {user for user in USERS if place("two", user)[0] < 0.5},
        {user for user, (_, bucket) in zip(USERS, mine, strict=True) if bucket < BUCKETS / 2},
    ):
        assert len(inside & chosen) / len(USERS) == pytest.approx(0.25, abs=0.015)


def test_users_of_a_stopped_variant_are_in_none_and_all_others_stay() -> None:
    before = pilot(0.5)
    after = msgspec.structs.replace(before, stops={"b": Stop("harm", 2_000)})
    for user in USERS[:2_000]:
        was, now = before.variant_of(user), after.variant_of(user)
        assert now is None if was == B else now == was
    assert after.running
    assert not msgspec.structs.replace(before, stops={"b": Stop("harm", 1), "c": Stop("harm", 1)}).running


def test_a_pilot_grows_by_stages_until_it_serves_everybody_and_ends() -> None:
    one = started("p", [B], 0.01, 0.02, 1)
    shares = [one.share]
    while shares[-1] < 1:
        one = one.at(one.next_share, 5)
        shares.append(one.share)
    assert shares == [0.01, 0.1, 0.5, 1.0]
    assert (one.stage, one.shares) == (4, {1: 0.01, 2: 0.1, 3: 0.5, 4: 1.0})
    with pytest.raises(PilotError, match="serves everybody"):
        _ = one.next_share
    ended = one.end("b is the setting now", 9)
    assert not ended.running
    for step in (lambda: ended.end("again", 10), lambda: ended.at(0.5, 10)):
        with pytest.raises(PilotError, match="b is the setting now"):
            step()


@pytest.mark.parametrize(
    ("name", "variants", "share", "why"),
    [
        ("p", [], 0.1, "needs a variant"),
        ("P", [B], 0.1, "'P' is no name"),
        ("p q", [B], 0.1, "is no name"),
        ("p", [Variant("control", B.lists)], 0.1, "everybody else"),
        ("p", [B, B], 0.1, "names of their own"),
        ("p", [B], 0.0, "above 0"),
        ("p", [B], 1.1, "at most 1"),
        ("p", [B], float("nan"), "above 0"),
    ],
)
def test_what_cannot_be_is_refused(name: str, variants: list[Variant], share: float, why: str) -> None:
    with pytest.raises(PilotError, match=why):
        started(name, variants, share, 0.02, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("b", "is no variant"),
        ("b=", "is no variant"),
        ("b=ranking", "is no variant"),
        ("b=ranking=model,5", "is no variant"),
        ("b=ranking=best", "Invalid enum value 'best'"),
        ("b=colour=red", "there are ranking, list_items"),
        ("b=list_items=0", ">= 1"),
        ("b=ranking=served", "changes nothing"),
    ],
)
def test_a_variant_that_cannot_be_read_is_refused(text: str, why: str) -> None:
    with pytest.raises(PilotError, match=why):
        Variant.parse(text)
