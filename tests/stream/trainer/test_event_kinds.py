"""What the settings say of events reaches what is learnt and what is asked."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.items import ItemIndex
from model.popularity import DecayedPopularity
from state.history import EMPTY, Entry, History, merge_entries
from stream.trainer.changed_users import Changed
from stream.trainer.exam import Exam, pack
from stream.trainer.holdout import Question, hold_out
from stream.wire.meaning import EventKind, EventKinds

DAY = 86_400_000
KINDS = EventKinds(
    {
        "view": EventKind(strength=0.25, hides="never"),
        "buy": EventKind(hides="1d"),
        "return": EventKind(negative=True),
    }
)
INDEX = ItemIndex("abcdef")


def history(*events: tuple[int, str, str]) -> History:
    return merge_entries(EMPTY, [Entry(day * DAY, item, 1.0, kind) for day, item, kind in events], 200)


def ask(told: History, kinds: EventKinds = KINDS, share: float = 0.5) -> tuple[History, Question | None]:
    known, questions = hold_out({b"u": (told, Changed(0, 0, len(told.items)))}, share, 0, kinds)
    return known.get(b"u", EMPTY), questions.get(b"u")


def test_a_purchase_that_is_repeated_is_a_right_answer_and_its_past_is_known() -> None:
    known, question = ask(history((1, "a", "buy"), (2, "b", "buy"), (8, "a", "buy")))
    assert question is not None
    assert question.answer == ("a",)
    assert (known.items, known.times_ms) == (("b", "a"), (2 * DAY, DAY))


def test_a_repeat_that_may_not_be_listed_is_no_question() -> None:
    known, question = ask(history((1, "a", ""), (2, "b", ""), (8, "a", "")), EventKinds())
    assert question is None
    assert known.items == ("b", "a")


def test_a_return_is_never_a_right_answer_nor_a_lesson() -> None:
    told = history((1, "a", "buy"), (2, "b", "buy"), (8, "a", "return"))
    _, question = ask(told)
    assert question is None
    lessons = pack(INDEX, [told], KINDS)
    assert [INDEX.ids[column] for column in lessons.columns] == ["b"]


def test_a_weight_of_zero_is_neither_answer_nor_lesson_nor_popularity() -> None:
    told = merge_entries(EMPTY, [Entry(DAY, "a", 1.0), Entry(2 * DAY, "b", 1.0), Entry(8 * DAY, "c", 0.0)], 200)
    _, question = ask(told, EventKinds(), 0.3)
    assert question is None
    lessons = pack(INDEX, [told])
    assert [INDEX.ids[column] for column in lessons.columns] == ["b", "a"]
    assert DecayedPopularity(INDEX).fit(lessons).scores.tolist() == [1.0, 1.0, 0, 0, 0, 0]


def test_the_exam_offers_what_may_be_listed_again() -> None:
    told = history((1, "a", "buy"), (9, "b", "buy"))
    popularity = DecayedPopularity(INDEX).fit(pack(INDEX, [told, history((1, "a", "buy"))], KINDS))
    exam = Exam(INDEX, [Question(told, ("a",))], KINDS)
    evidence = exam.evidence(None, None, popularity, np.random.default_rng(0))
    assert evidence.popularity_recall == 1.0
    masked = Exam(INDEX, [Question(told, ("a",))]).evidence(None, None, popularity, np.random.default_rng(0))
    assert masked.popularity_recall == 0.0


events = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from("abcdef"), st.sampled_from(["", "view", "buy", "return"])),
    min_size=2,
    max_size=20,
    unique_by=lambda event: event[0],
)


@given(events, st.sampled_from([0.2, 0.5]))
def test_the_known_part_is_the_history_as_it_was(told: list[tuple[int, str, str]], share: float) -> None:
    known, question = ask(history(*told), KINDS, share)
    if question is None:
        return
    cut_ms = known.newest_ms
    assert known == history(*(event for event in told if event[0] * DAY <= cut_ms))
    assert not any(kind == "return" for _, item, kind in told if item in question.answer) or question.answer
