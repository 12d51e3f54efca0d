"""A demo goes on where its models are late, and no longer than it says."""

from stream.demo.run import event_numbers


def test_it_ends_as_planned_where_the_models_are_live() -> None:
    said: list[bool] = []
    assert list(event_numbers(3, 5, lambda: True, lambda: said.append(True))) == [0, 1, 2]
    assert not said


def test_it_goes_on_until_they_are_and_says_so_once() -> None:
    live = [False]
    said: list[int] = []
    sent: list[int] = []
    for number in event_numbers(3, 5, lambda: live[0], lambda: said.append(len(sent))):
        sent.append(number)
        live[0] = number == 4
    assert (sent, said) == ([0, 1, 2, 3, 4], [3])


def test_it_does_not_wait_for_ever() -> None:
    assert list(event_numbers(2, 3, lambda: False, lambda: None)) == [0, 1, 2, 3, 4]
