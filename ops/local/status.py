"""The status page: one self-contained HTML page, and its figures, which this server scrapes for the browser.

Paths, at one address of this machine:
    /             the page
    /status.json  the newest figures and those of the last minutes
    /user.json    ?user=...: a user's last list, from the given lookup
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ops.local.figures import figures, series_point
from ops.local.scraping import Samples, read

__all__ = ["Lookup", "StatusPage"]

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("status.html")

# A user's last list as JSON-ready values, or None for an unknown user:
# {"items": [{"item": ..., "score": ..., "why": ...}, ...], "model": ..., ...}; other keys are shown as they are.
Lookup = Callable[[str], Mapping[str, Any] | None]

# The page loads nothing from other hosts: it works on a machine without a network.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


class StatusPage:
    """Scrapes `urls` (process -> /metrics address) every `every_seconds` and serves the page until `close`."""

    _RATE_SECONDS = 10.0  # span of the rates
    _PAST_SECONDS = 120.0  # span of the percentiles and hit rates

    def __init__(
        self,
        urls: Mapping[str, str],
        lookup: Lookup | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        every_seconds: float = 2.0,
        points: int = 120,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if every_seconds <= 0:
            raise ValueError(f"every_seconds must be positive, got {every_seconds}")
        self._urls, self.lookup, self._clock, self._every = urls, lookup, clock, every_seconds
        self._samples: deque[Samples] = deque(maxlen=max(int(self._PAST_SECONDS / every_seconds) + 1, 2))
        self._series: deque[dict[str, float | None]] = deque(maxlen=points)
        self._answer = b"{}"
        self._stop = threading.Event()
        page = self

        class Handler(_Handler):
            status = page

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self.url = f"http://{host}:{self.port}/"
        self.hosts = {f"{name}:{self.port}" for name in (host, "localhost", "127.0.0.1")}
        self.scrape()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="status page", daemon=True),
            threading.Thread(target=self._scrape_forever, name="status scrape", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def scrape(self) -> None:
        """Scrape all processes now."""
        now = read(self._urls, self._clock())
        recent = [old for old in self._samples if now.seconds - old.seconds <= self._RATE_SECONDS]
        before = recent[0] if recent else (self._samples[-1] if self._samples else None)
        past = self._samples[0] if self._samples else None
        found = figures(now, before, past)
        self._samples.append(now)
        self._series.append(series_point(found))
        self._answer = json.dumps({**found, "series": list(self._series), "lookup": self.lookup is not None}).encode()

    @property
    def answer(self) -> bytes:
        return self._answer

    def _scrape_forever(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.scrape()
            except Exception:  # the page shows the age of its figures
                log.exception("the status page could not read its figures")

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    status: StatusPage
    server_version, sys_version = "freshet", ""

    def do_GET(self) -> None:
        # A foreign page whose host name was made to resolve to this machine (DNS rebinding) must not read this one.
        if self.headers.get("Host") not in self.status.hosts:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"use the address that this page was started with\n")
            return
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())
        elif url.path == "/status.json":
            self._send(HTTPStatus.OK, "application/json", self.status.answer)
        elif url.path == "/user.json":
            self._user(parse_qs(url.query).get("user", [""])[0])
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"nothing here\n")

    def _user(self, user: str) -> None:
        lookup = self.status.lookup
        if lookup is None or not user:
            self._send(HTTPStatus.NOT_FOUND, "application/json", b'{"error": "no user to look up"}')
            return
        try:
            found = lookup(user)
        except Exception as error:
            log.exception("the last list of a user could not be looked up")
            answer = {"error": f"the lookup failed: {type(error).__name__}"}
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", json.dumps(answer).encode())
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "application/json", b'{"error": "no list for this user"}')
        else:
            self._send(HTTPStatus.OK, "application/json", json.dumps(found).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
