"""Settings of a sink."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from stream.wire.topics import SINK_GROUP

__all__ = ["SinkConfig", "SinkConfigError"]


class SinkConfigError(ValueError):
    """A sink that cannot be written to as described; the message says what to change."""


@dataclass(frozen=True)
class SinkConfig:
    url: str = "redis://127.0.0.1:6379/0"
    """Where the lists go: redis://host:port/database, or rediss:// with TLS."""
    namespace: str = "freshet"
    """Beginning of every key. The prefix of the topics, if there is one, comes after it."""
    expire_seconds: float = 0.0
    """Time after which a list that was not written again disappears; 0: never."""
    batch_records: int = 500
    """Most lists of one transaction."""
    session_seconds: float = 10.0
    """Silence after which the group gives this sink's partitions to others."""
    group: str = SINK_GROUP

    def __post_init__(self) -> None:
        url = urlsplit(self.url)
        if url.scheme not in ("redis", "rediss") or not url.hostname:
            raise SinkConfigError(
                f"a sink's URL is redis://host:port/database, got {url._replace(netloc='...').geturl()}"
            )
        if url.password:
            raise SinkConfigError("everybody on this machine sees a password in the URL: set FRESHET_REDIS_PASSWORD")
        for name in ("batch_records", "session_seconds"):
            if getattr(self, name) <= 0:
                raise SinkConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.expire_seconds < 0:
            raise SinkConfigError(f"expire_seconds must not be negative, got {self.expire_seconds}")
