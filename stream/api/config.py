"""Settings of an API process."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from state.store import StoreConfig
from stream.wire.catalogue import CatalogueConfig
from stream.wire.meaning import EventKinds
from stream.wire.records import Limits
from stream.wire.topics import API_GROUP

__all__ = ["ApiConfig", "ApiConfigError"]


class ApiConfigError(ValueError):
    """Settings with which the API cannot run; the message says what to change."""


@dataclass(frozen=True)
class ApiConfig:
    state_dir: Path = Path("freshet-state/api")
    """Folder of this instance's local state. One process, one folder."""
    host: str = "127.0.0.1"
    """Address on which the API listens. Anything beyond this machine needs a tokens file."""
    port: int = 8080
    """Port on which the API listens; 0 takes a free one."""
    advertise: str = ""
    """URL, http://host:port, by which other instances reach this one; made of host and port when empty."""
    group: str = API_GROUP
    tokens_file: Path | None = None
    """File that says who may ask (`freshet token` writes it). Without one, only this machine is served."""
    access_log: str = "-"
    """Where each request is logged as a line of JSON: a file, - for standard output, or off."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read the answers, such as https://shop.example."""
    requests_per_second: float = 2000.0
    """Most requests of one token, or of one address where no token is needed."""
    body_bytes: int = 4 * 1024 * 1024
    """Largest body of a request."""
    body_seconds: float = 10.0
    """Longest time that a body may take to arrive."""
    events_per_request: int = 1000
    """Most events in one request."""
    wait_seconds: float = 2.0
    """Longest wait for a list that knows `as_of`."""
    stale_seconds: float = 5.0
    """Answers stop when the topics were last read to their ends longer ago than this: an instance that was paused or
    cut off from Kafka must not show what others have replaced."""
    session_seconds: float = 10.0
    """Silence after which the group gives this instance's partitions to others."""
    handover_seconds: float = 30.0
    """How long a partition that moved away is answered here at most, until its new holder is ready."""
    drain_seconds: float = 5.0
    """The same when this instance stops."""
    popularity_half_life_ms: int = 7 * 86_400_000
    """Event time in which popularity halves, for users of whom no list is known."""
    limits: Limits = field(default_factory=Limits)
    events: EventKinds = field(default_factory=EventKinds)
    items: CatalogueConfig = field(default_factory=CatalogueConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        for name in (
            *("requests_per_second", "body_bytes", "body_seconds", "events_per_request", "stale_seconds"),
            *("session_seconds", "handover_seconds", "popularity_half_life_ms"),
        ):
            if getattr(self, name) <= 0:
                raise ApiConfigError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("wait_seconds", "drain_seconds"):
            if getattr(self, name) < 0:
                raise ApiConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.tokens_file is None and not self.is_local:
            raise ApiConfigError(
                f"listening on {self.host} needs --tokens-file: without tokens only this machine is served "
                "(`freshet token --help` makes one)"
            )
        if self.advertise:
            url = urlsplit(self.advertise)
            if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query:
                raise ApiConfigError(f"advertise must be http://host:port, got {self.advertise!r}")

    @property
    def is_local(self) -> bool:
        """Only processes of this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def address(self, port: int) -> str:
        """URL by which other instances reach this one, listening on `port`."""
        if self.advertise:
            return self.advertise.rstrip("/")
        host = self.host
        if not self.is_local and host in ("0.0.0.0", "::"):  # a comparison, not a binding
            host = socket.getfqdn()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"
