"""A fake Schema Registry: it speaks the HTTP protocol of Confluent's, as far as clients register and fetch schemas.

It is no registry: nothing is checked for compatibility, and Protobuf is kept as its writer serialized it.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["FakeRegistry", "fake_registry"]


class FakeRegistry:
    """`fails` is what it answers everything with instead: a status and a body."""

    def __init__(self, port: int = 0, user: str = "", password: str = "") -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.versions: dict[tuple[str, int], int] = {}
        self.asked: list[str] = []
        self.fails: tuple[int, bytes] | None = None
        self.credentials = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                self._answer(*registry.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*registry.post(self.path, body))

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                if registry.credentials and self.headers["Authorization"] != f"Basic {registry.credentials}":
                    status, content = 401, b'{"error_code": 401, "message": "Unauthorized"}'
                if registry.fails is not None:
                    status, content = registry.fails
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(path)
        parts = urlsplit(path)
        serialized = parse_qs(parts.query).get("format") == ["serialized"]
        match [unquote(part) for part in parts.path.strip("/").split("/")]:
            case ["schemas", "ids", number]:
                if int(number) not in self.schemas:
                    return 404, {"error_code": 40403, "message": "Schema not found"}
                return 200, self._shown(int(number), serialized)
            case ["subjects", subject, "versions", version]:
                found = self.versions.get((subject, int(version)))
                if found is None:
                    return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
                place = {"subject": subject, "version": int(version), "id": found}
                return 200, self._shown(found, serialized) | place
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _shown(self, number: int, serialized: bool) -> dict[str, Any]:
        schema = self.schemas[number]
        if schema.get("schemaType") == "PROTOBUF" and not serialized:
            return schema | {"schema": 'syntax = "proto3"; // as a text, which nobody here reads'}
        return schema

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Register a schema, or look one up that is registered."""
        self.asked.append(path)
        subject = unquote(urlsplit(path).path.strip("/").split("/")[1])
        same = [number for number, schema in self.schemas.items() if schema == body]
        number = same[0] if same else len(self.schemas) + 1
        self.schemas[number] = body
        version = 1 + sum(name == subject for name, _ in self.versions)
        known = [v for (name, v), of in self.versions.items() if (name, of) == (subject, number)]
        version = known[0] if known else version
        self.versions[subject, version] = number
        return 200, body | {"id": number, "subject": subject, "version": version}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def fake_registry(port: int = 0, user: str = "", password: str = "") -> Iterator[FakeRegistry]:
    registry = FakeRegistry(port, user, password)
    try:
        yield registry
    finally:
        registry.close()
