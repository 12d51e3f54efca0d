"""uvicorn's HTTP protocol with limits on the size of the request line and headers, and on the time that they may take.

uvicorn's fast parser keeps headers of any length in memory, and waits for their end without a limit.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedHttp"]

HEADER_BYTES = 64 * 1024  # of the request line and all headers
HEADER_SECONDS = 10.0


class BoundedHttp(HttpToolsProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0  # received before the end of the headers; their size once they are complete
        self._in_head = True
        self._too_long: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._end_head()
        if size > HEADER_BYTES:
            self._refuse()
            raise ValueError("headers too large")  # ends the parser; the connection is closed, so it cannot answer
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _expect_head(self) -> None:
        self._end_head()
        self._in_head, self._head_bytes = True, 0
        self._too_long = self.loop.call_later(HEADER_SECONDS, self._close)

    def _end_head(self) -> None:
        self._in_head = False
        if self._too_long is not None:
            self._too_long.cancel()
            self._too_long = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self) -> None:
        body = b'{"title":"Request Header Fields Too Large","status":431,"detail":"at most %d bytes"}' % HEADER_BYTES
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            b"content-type: application/problem+json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()
