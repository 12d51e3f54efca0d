"""A process's pages: probes answer for it, and every other path shows its metrics."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from ops.server import PageServer, serve

WHY: list[str] = [""]


@pytest.fixture
def server() -> Iterator[PageServer]:
    WHY[0] = ""
    server = serve(CollectorRegistry(), probes={"/readyz": lambda: WHY[0]})
    yield server
    server.close()


def get(server: PageServer, path: str) -> tuple[int, str, str]:
    """Status, Retry-After and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as page:
            return page.status, page.headers.get("retry-after", ""), page.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("retry-after", ""), error.read().decode()


def test_a_probe_says_yes_or_why_not(server: PageServer) -> None:
    assert get(server, "/readyz") == (200, "", '{"status": "ok"}')
    WHY[0] = "partition 2 is being restored"
    status, retry, body = get(server, "/readyz")
    assert (status, retry) == (503, "1")
    assert json.loads(body) == {"status": "unavailable", "detail": "partition 2 is being restored"}


@pytest.mark.parametrize("path", ["/metrics", "/", "/healthz"])
def test_other_paths_show_the_metrics(server: PageServer, path: str) -> None:
    """Also that of a probe that this process does not have."""
    status, _, body = get(server, path)
    assert status == 200 and "process_resident_memory_bytes" in body


def test_a_port_that_is_taken_is_an_error_of_the_system(server: PageServer) -> None:
    with pytest.raises(OSError, match="in use"):
        serve(CollectorRegistry(), port=server.port)
