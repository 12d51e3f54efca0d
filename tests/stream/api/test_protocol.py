"""What comes before a body is bounded in size and time, and tricks with headers are refused."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stream.api import protocol


async def echo(scope: dict, receive: object, send: object) -> None:
    """Answers with the method and the path."""
    body = f"{scope['method']} {scope['path']}".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(echo, http=protocol.BoundedHttp, ws="none", lifespan="off", log_config=None, port=0)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def answer_to(port: int, request: bytes) -> bytes:
    """What comes back until the server closes the connection or the answer is complete."""
    with connected(port) as connection:
        connection.sendall(request)
        found = b""
        while b"\r\n\r\n" not in found:
            part = connection.recv(65536)
            if not part:
                break
            found += part
        return found


def status_of(port: int, request: bytes) -> int:
    return int(answer_to(port, request).split(b" ", 2)[1])


def test_a_plain_request_is_answered_and_the_connection_stays(port: int) -> None:
    with connected(port) as connection:
        for path in (b"/one", b"/two"):
            connection.sendall(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            assert connection.recv(65536).endswith(b"GET " + path)


def test_headers_of_the_largest_size_pass_and_larger_ones_do_not(port: int) -> None:
    padding = protocol.HEADER_BYTES - 1000
    assert status_of(port, b"GET / HTTP/1.1\r\nhost: x\r\na: %s\r\n\r\n" % (b"x" * padding)) == 200
    assert status_of(port, b"GET / HTTP/1.1\r\nhost: x\r\na: %s\r\n\r\n" % (b"x" * protocol.HEADER_BYTES)) == 431
    assert status_of(port, b"GET /%s HTTP/1.1\r\nhost: x\r\n\r\n" % (b"x" * protocol.HEADER_BYTES)) == 431
    assert status_of(port, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * protocol.HEADER_BYTES) == 431


def test_a_header_that_never_ends_is_not_collected(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\na: ")
        sent = 0
        try:
            while sent < 100 * protocol.HEADER_BYTES:
                sent += connection.send(b"x" * 16_384)
        except OSError:
            pass
        assert sent < 100 * protocol.HEADER_BYTES


def test_who_sends_a_head_slowly_is_left(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.5)
    with connected(port) as silent, connected(port) as slow:
        began = time.monotonic()
        slow.sendall(b"GET / HTTP/1.1\r\nhost")
        assert slow.recv(100) == b"" and silent.recv(100) == b""
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n a: folded\r\n\r\n",
        b"GET / HTTP/1.1\r\na: \x00\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"CONNECT example.com:80 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_tricks_are_refused(port: int, request_bytes: bytes) -> None:
    answer = answer_to(port, request_bytes)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert status_of(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == 200  # and others are served on


def test_the_methods_it_overrides_are_those_of_the_library() -> None:
    for name in ("connection_made", "connection_lost", "data_received", "on_message_begin", "on_headers_complete"):
        assert name in vars(HttpToolsProtocol), name
    assert "send_400_response" in vars(HttpToolsProtocol)
