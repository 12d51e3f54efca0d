"""What a run's account reads from the processes' pages."""

from prometheus_client import CollectorRegistry

from ops.metrics import UpdaterMetrics
from ops.server import serve
from stream.demo.scrape import scrape


def test_pages_are_added_up_and_a_process_that_does_not_answer_is_down() -> None:
    registry = CollectorRegistry()
    metrics = UpdaterMetrics(registry)
    metrics.dead_letters["decode"].inc(2)
    metrics.dead_letters["schema"].inc(3)
    metrics.event_to_history.observe_many([0.04, 0.2, 0.3])
    server = serve(registry)
    page = f"http://127.0.0.1:{server.port}/metrics"
    try:
        found = scrape({"one": page, "two": page, "gone": "http://127.0.0.1:1/metrics"})
    finally:
        server.close()
    assert found.down == {"gone"}
    assert found.waiting() == {"one", "two"}  # neither has come around yet
    assert found.total("freshet_dead_letters_total") == 10
    assert found.total("freshet_dead_letters_total", reason="schema") == 6
    assert found.labels("freshet_dead_letters_total", "reason") == ["decode", "schema"]
    assert found.share_at_most("freshet_event_to_history_seconds", "0.25") == (4, 6)
