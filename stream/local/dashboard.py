"""Monitoring of a pipeline on this machine: the status page, and a Prometheus server if it is installed."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ops.local.prometheus import LocalPrometheus, PrometheusError, find_prometheus
from ops.local.status import StatusPage
from stream.clients.connection import KafkaConnection
from stream.local.last_list import ListLookup
from stream.local.pipeline import free_port
from stream.wire.topics import TopicPlan

__all__ = ["lookout"]

log = logging.getLogger(__name__)

STATUS_PORT = 9100
_PROMETHEUS_PORT = 9090


def jobs(urls: Mapping[str, str]) -> dict[str, list[str]]:
    """Prometheus jobs for processes with these /metrics addresses; the workers of one kind are one job.

    >>> jobs({"updater-0": "http://127.0.0.1:9101/metrics", "updater-1": "http://127.0.0.1:9104/metrics"})
    {'freshet-updater': ['127.0.0.1:9101', '127.0.0.1:9104']}
    """
    found: dict[str, list[str]] = defaultdict(list)
    for process, url in urls.items():
        found[f"freshet-{process.partition('-')[0]}"].append(urlsplit(url).netloc)
    return dict(found)


@contextmanager
def lookout(
    urls: Mapping[str, str],
    connection: KafkaConnection,
    plan: TopicPlan,
    folder: Path,
    say: Callable[[str], None],
    status_port: int = STATUS_PORT,
) -> Iterator[StatusPage]:
    """Serve the page, and scrape into `folder`, until the block ends. `say` is called with the addresses."""
    with ExitStack() as stack:
        lookup = ListLookup(connection, plan)
        stack.callback(lookup.close)
        page = StatusPage(urls, lookup, port=free_port(status_port))
        stack.callback(page.close)
        say(f"status page at {page.url}")
        program = find_prometheus(os.environ)
        if program is not None:
            prometheus = LocalPrometheus(program, jobs(urls), folder / "prometheus", free_port(_PROMETHEUS_PORT))
            try:
                stack.enter_context(prometheus)
            except PrometheusError as error:
                log.warning("going on without Prometheus: %s", error)
            else:
                say(f"Prometheus at {prometheus.url}")
        yield page
