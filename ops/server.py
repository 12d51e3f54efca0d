"""The HTTP pages of a process: `/metrics` for Prometheus, and the given probes for an orchestrator."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

__all__ = ["PageServer", "serve"]

Probe = Callable[[], str]  # the reason for a negative answer; empty for a positive one

_RETRY_SECONDS = "1"


class PageServer:
    """Answers at `http://host:port` from its own threads, so a busy process still answers. Every path without a probe
    shows the metrics."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int, probes: Mapping[str, Probe]) -> None:
        server = _ServerV6 if ":" in host else ThreadingWSGIServer
        self._server = make_server(host, port, _pages(registry, probes), server, handler_class=_SilentHandler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="pages", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _ServerV6(ThreadingWSGIServer):
    address_family = socket.AF_INET6


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Write no line for a request, because scrapes would fill the log."""


def _pages(registry: CollectorRegistry, probes: Mapping[str, Probe]) -> Callable[[dict, Callable], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def answer(request: dict, start: Callable) -> Iterable[bytes]:
        probe = probes.get(request.get("PATH_INFO", ""))
        if probe is None:
            return metrics(request, start)
        why_not = probe()
        body = {"status": "unavailable", "detail": why_not} if why_not else {"status": "ok"}
        headers = [("Content-Type", "application/json"), *([("Retry-After", _RETRY_SECONDS)] if why_not else [])]
        start("503 Service Unavailable" if why_not else "200 OK", headers)
        return [json.dumps(body).encode()]

    return answer


def serve(
    registry: CollectorRegistry, host: str = "127.0.0.1", port: int = 0, probes: Mapping[str, Probe] | None = None
) -> PageServer:
    """Serve this registry, with the process's own memory, CPU and file counts; port 0 takes a free one.

    Raises OSError when the port is taken.
    """
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return PageServer(registry, host, port, probes or {})
