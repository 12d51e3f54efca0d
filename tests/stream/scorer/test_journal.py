"""What a scorer had counted at any batch is counted again from its journal: bit for bit, from any of its segments."""

from pathlib import Path

import numpy as np
import pytest

from model.rerank.counts import StreamCounts
from state.popularity import Popularity
from stream.scorer.config import ListConfig, settings_digest
from stream.scorer.counting import count_batch
from stream.scorer.event_counts import EventCounts
from stream.scorer.journal import Batch, Journal, JournalError, read_anchor, read_batches, read_start
from stream.scorer.models import Models
from stream.scorer.prequential import ShownList
from stream.scorer.requests import Request, coalesce
from stream.scorer.scoring import Scoring
from stream.wire.made import Made, history_digest
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import NOW, World

CONFIG = ListConfig(3, popularity_half_life_ms=10_000)


class Recorded:
    """A scorer in a small world, with a journal; every refresh that it took, by its place."""

    def __init__(self, folder: Path, segment_seconds: float = 0.5) -> None:
        self.world, self.folder = World(folder / "lists"), folder / "journal"
        self.taken: dict[tuple[int, int], Request] = {}
        self.states: dict[int, tuple[bytes, dict[str, np.ndarray], list[str]]] = {}  # by batch
        self.journal = Journal(
            *(self.folder, settings_digest(CONFIG), 24, CONFIG.popularity_half_life_ms),
            clock=lambda: self.world.now_ms / 1000,
            segment_seconds=segment_seconds,
        )
        world = self.world
        self.scoring = world.scoring = Scoring(
            CONFIG, world.lists, world._metrics, lambda: world.now_ms / 1000, journal=self.journal
        )

    def batch(self, *requests: Request) -> None:
        for request in requests:
            self.taken[request.partition, request.offset] = request
        self.scoring.score(coalesce(requests), [(request.partition, request.offset) for request in requests])
        counts = self.scoring.stages.second_stage.events.counts
        state = {name: values.copy() for name, values in counts.state().items()}
        self.states[len(self.states) + 1] = self.scoring.popularity.state(), state, list(counts.ids)
        self.world.now_ms += 100

    def again(self, tape: Path, until: int) -> tuple[Popularity, StreamCounts]:
        """Counted again from the beginning of a segment up to a batch."""
        popularity, counts = read_anchor(tape, read_start(tape))
        events = EventCounts(CONFIG.events, counts)
        for batch in read_batches(tape):
            if batch.number > until:
                break
            events.counts.known(batch.added)
            if batch.retaken:
                popularity.take_top()
            requests = coalesce(self.taken[place] for place in batch.positions())
            kept = [request for place, request in enumerate(requests) if place not in batch.stale]
            count_batch(kept, CONFIG.events, popularity, events)
        return popularity, events.counts

    @property
    def tapes(self) -> list[Path]:
        return sorted(self.folder.glob("*.tape"))


def numbers(tape: Path) -> list[int]:
    return [batch.number for batch in read_batches(tape)]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """Twenty batches of users who meet items at random; models come, lists are late, popularity is saved."""
    recorded, rng = Recorded(tmp_path), np.random.default_rng(5)
    world = recorded.world
    for step in range(20):
        requests = []
        for user in rng.integers(6, size=rng.integers(1, 7)):
            history = "".join(rng.permutation(list("abcdefghijkl"))[: rng.integers(1, 6)])
            requests.append(world.request(f"u{user}", history, new=history[: rng.integers(0, 2)]))
        if step in (6, 13):
            recorded.scoring.models = Models(live=fixed(f"v{step}", "abcdefgh"), previous=fixed("v0", "hgfedcb"))
        if step % 5 == 4:
            recorded.scoring.saved_popularity()
        recorded.batch(*requests)
    recorded.journal.close()
    return recorded


def test_counts_at_every_batch_are_counted_again(recorded: Recorded) -> None:
    assert len(recorded.tapes) == 4
    for tape in recorded.tapes:
        for number in numbers(tape):
            popularity, counts = recorded.again(tape, number)
            expected, arrays, ids = recorded.states[number]
            assert popularity.state() == expected
            assert counts.ids == ids
            for name, values in arrays.items():
                np.testing.assert_array_equal(counts.state()[name], values, err_msg=name)


def test_lists_name_their_batch_and_their_history(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    world = recorded.world
    recorded.batch(world.request("v", "b", new="b"))
    request = world.request("u", "a", new="a")
    scored = recorded.scoring.score([request], [(0, request.offset)])
    made = Made.decode(scored.answers[0].made)
    assert made == Made(recorded.journal.life, 2, "-", 0, NOW, settings_digest(CONFIG), request.digest)
    assert Made.from_headers([("history", b"1 2 3"), ("made", made.encode())]) == made


@pytest.mark.parametrize("value", [b"", b"1 2 3", b"a b c d e f g", b"\xff 1 - 0 0 0 0"])
def test_a_header_of_another_hand_says_nothing(value: bytes) -> None:
    assert Made.from_headers([("made", value)]) is None


def test_a_history_has_one_digest_stored_or_sent() -> None:
    assert history_digest(b"\x01same") == history_digest(b"\x02same") != history_digest(b"\x01sane")


def test_a_batch_that_was_being_written_is_left_out(recorded: Recorded) -> None:
    tape = recorded.tapes[0]
    whole, written = tape.read_bytes(), numbers(tape)
    tape.write_bytes(whole[:-3])
    assert numbers(tape) == written[:-1]
    tape.write_bytes(whole + b"\x01\x00\x00\x00\xc1")
    with pytest.raises(JournalError, match="damaged"):
        numbers(tape)


def test_an_anchor_that_is_not_whole_is_refused(recorded: Recorded) -> None:
    tape = recorded.tapes[1]
    anchor = tape.with_suffix(".anchor")
    anchor.write_bytes(anchor.read_bytes()[:-1])
    with pytest.raises(JournalError, match="damaged"):
        read_anchor(tape, read_start(tape))
    anchor.unlink()
    with pytest.raises(JournalError, match="is not there"):
        read_anchor(tape, read_start(tape))


def test_old_segments_are_dropped(recorded: Recorded) -> None:
    day_later = max(path.stat().st_mtime for path in recorded.tapes) + 24 * 3600 + 2
    later = Journal(recorded.folder, 0, 24, 1, clock=lambda: day_later, segment_seconds=1)
    later.turn(Popularity(1), StreamCounts())
    later.close()
    assert [path.name for path in recorded.folder.iterdir()] == [f"{later.life}-00000.tape"]


def test_a_disk_that_is_full_costs_no_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal").write_text("no folder")
    recorded = Recorded(tmp_path)
    request = recorded.world.request("u", "a", new="a")
    scored = recorded.scoring.score([request], [(0, request.offset)])
    made = Made.decode(scored.answers[0].made)
    assert made is not None and made.scorer == "-"
    assert "cannot be made again" in caplog.text


def test_no_journal_is_kept_if_none_is_wanted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 0, 0, 1)
    journal.turn(Popularity(1), StreamCounts())
    journal.write([(0, 1)], (), (), Models(), 0, 0)
    journal.close()
    assert not (tmp_path / "journal").exists()
    assert Made.decode(journal.made(None, 7)) == Made("-", 1, "-", 0, 0, 0, 7)


def test_runs_of_offsets_are_what_was_taken(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 24, 1)
    journal.turn(Popularity(1), StreamCounts())
    places = [(0, 5), (0, 6), (1, 0), (0, 7), (0, 9), (0, 3)]
    journal.write(places, (), (), Models(), 0, 0)
    journal.close()
    (batch,) = read_batches(next(tmp_path.glob("*.tape")))
    assert isinstance(batch, Batch)
    assert list(batch.positions()) == places
    assert batch.taken[0] == (0, 5, 2)


def test_a_list_that_was_stored_by_the_last_release_is_read() -> None:
    old = ShownList(1, "control", "v1", ("a",), (0.5,)).encode()[:-3]  # without what it was made of, and a pilot
    assert ShownList.decode(bytes([old[0] - 2]) + old[1:]) == ShownList(1, "control", "v1", ("a",), (0.5,))


def test_other_settings_have_another_digest() -> None:
    assert settings_digest(ListConfig(3)) == settings_digest(ListConfig(3, explain=2, shown_ms=1))
    assert settings_digest(ListConfig(3)) != settings_digest(ListConfig(4))
