"""Offsets that were sent again, kept as runs."""

from hypothesis import given
from hypothesis import strategies as st

from stream.letters.reading import Letter
from stream.letters.resent import Resent


def letter(partition: int, offset: int) -> Letter:
    return Letter(partition, offset, 0, "", "", "", 0, 0, None, None, ())


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30))), max_size=8))
def test_whatever_was_added_is_known_and_nothing_else(batches: list[list[tuple[int, int]]]) -> None:
    resent = Resent("dead-letters", "id")
    for batch in batches:
        resent.add(letter(*place) for place in batch)
    again, other = Resent("dead-letters", "id"), Resent("dead-letters", "made again")
    for key, value in resent.records():
        again.take(key, value)
        other.take(key, value)
    added = {place for batch in batches for place in batch}
    for partition in range(3):
        for offset in range(32):
            known = (partition, offset) in added
            assert (letter(partition, offset) in resent) == (letter(partition, offset) in again) == known
            assert letter(partition, offset) not in other


def test_neighbours_are_one_run() -> None:
    resent = Resent("dead-letters", "id")
    resent.add(letter(0, offset) for offset in (5, 3, 4, 9))
    ((key, value),) = resent.records()
    assert (key, value) == (b"resent/dead-letters/0", b'{"topic_id":"id","ranges":[[3,5],[9,9]]}')
    resent.take(b"layout", b'{"partitions":2}')
    resent.take(b"resent/other-dead-letters/0", b"not ours")
    assert letter(0, 4) in resent
