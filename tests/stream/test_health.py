"""What probes are told of a loop that turns, waits or hangs; see also the example in `stream/health.py`."""

from stream.health import Health


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_hanging_loop_is_dead_and_not_ready_until_it_turns_again() -> None:
    clock = Clock()
    health = Health(60, clock)
    health.turned()
    clock.now += 60
    assert health.why_dead() == health.why_unready() == ""
    clock.now += 1
    assert health.why_dead() == health.why_unready() == "the main loop has not turned for 61 s"
    health.turned()
    assert health.why_dead() == health.why_unready() == ""


def test_a_start_may_take_as_long_as_a_turn() -> None:
    clock = Clock()
    health = Health(60, clock)
    assert (health.why_dead(), health.why_unready()) == ("", "the process is starting")
    clock.now += 61
    assert health.why_dead()


def test_waiting_is_being_alive_and_not_ready() -> None:
    health = Health(60, Clock())
    health.turned("partitions are restored")
    assert (health.why_dead(), health.why_unready()) == ("", "partitions are restored")
    assert {path: probe() for path, probe in health.probes.items()} == {
        "/healthz": "",
        "/readyz": "partitions are restored",
    }
