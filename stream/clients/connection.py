"""How to reach Kafka: one description, turned into the settings of each client library.

The settings are read from the environment (`FRESHET_*`) and, where it has none, from the properties file that
`FRESHET_KAFKA_CONFIG` names, with the names that Java's clients and librdkafka use (see `stream.clients.properties`).
Secrets come from the environment, from that file, or from a file that `FRESHET_SASL_PASSWORD_FILE` names; `repr` does
not show them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stream.clients.properties import PropertiesError, connection_values, read_properties

__all__ = ["ConnectionConfigError", "KafkaConnection"]

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_ADDRESSES = ("FRESHET_BOOTSTRAP_SERVERS", "FRESHET_KAFKA_CONFIG")
_ADDRESS = re.compile(r"(?:(?P<protocol>\w+)://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?/?")
_PORT = "9092"
_RECONNECT_MS = 1_000  # longest wait between two attempts; kafka-python would wait up to 30 s after an outage
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class ConnectionConfigError(ValueError):
    """Settings that contradict each other, are not supported, or name a file that does not exist."""


def _setting(variable: str, secret: bool = False) -> Any:
    return field(default="", repr=not secret, metadata={"variable": variable})


@dataclass(frozen=True)
class KafkaConnection:
    bootstrap_servers: str = _setting("FRESHET_BOOTSTRAP_SERVERS")
    """Addresses of Kafka: host:port[,host:port]."""
    security_protocol: str = _setting("FRESHET_SECURITY_PROTOCOL")
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; PLAINTEXT when empty."""
    sasl_mechanism: str = _setting("FRESHET_SASL_MECHANISM")
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    sasl_username: str = _setting("FRESHET_SASL_USERNAME")
    """Name of the SASL user."""
    sasl_password: str = _setting("FRESHET_SASL_PASSWORD", secret=True)
    """Password of the SASL user."""
    ssl_cafile: str = _setting("FRESHET_SSL_CAFILE")
    """PEM file of the authorities to trust; those of the system when empty."""
    ssl_certfile: str = _setting("FRESHET_SSL_CERTFILE")
    """PEM file of this client's certificate."""
    ssl_keyfile: str = _setting("FRESHET_SSL_KEYFILE")
    """PEM file of this client's key."""
    ssl_key_password: str = _setting("FRESHET_SSL_KEY_PASSWORD", secret=True)
    """Password of this client's key."""

    def __post_init__(self) -> None:
        if not self.bootstrap_servers:
            raise ConnectionConfigError("no bootstrap servers: set FRESHET_BOOTSTRAP_SERVERS or --bootstrap-servers")
        servers, protocol = _addresses(self.bootstrap_servers)
        if protocol and self.security_protocol not in ("", protocol):
            raise ConnectionConfigError(
                f"{self.bootstrap_servers!r} says {protocol}, the security protocol is {self.security_protocol}"
            )
        object.__setattr__(self, "bootstrap_servers", ",".join(servers))
        object.__setattr__(self, "security_protocol", protocol or self.security_protocol)
        if self.security_protocol and self.security_protocol not in _PROTOCOLS:
            raise ConnectionConfigError(
                f"security protocol {self.security_protocol!r} is none of {', '.join(_PROTOCOLS)}"
            )
        for prefix, used, example in (("sasl_", self.uses_sasl, "SASL_SSL"), ("ssl_", self.uses_tls, "SSL")):
            given = [f.name for f in fields(self) if f.name.startswith(prefix) and getattr(self, f.name)]
            if given and not used:  # never fall back to an open connection in silence
                protocol = self.security_protocol or "PLAINTEXT"
                raise ConnectionConfigError(
                    f"{', '.join(given)} given, but {protocol} ignores it: did you mean {example}?"
                )
        if self.uses_sasl:
            if self.sasl_mechanism not in _MECHANISMS:
                raise ConnectionConfigError(
                    f"SASL mechanism {self.sasl_mechanism!r} is none of {', '.join(_MECHANISMS)}"
                )
            if not self.sasl_username or not self.sasl_password:
                raise ConnectionConfigError(f"{self.security_protocol} needs FRESHET_SASL_USERNAME and a password")
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path = getattr(self, name)
            if path and not Path(path).is_file():
                raise ConnectionConfigError(f"{name}: {path} is not a file")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], bootstrap_servers: str | None = None) -> KafkaConnection:
        """The connection of an environment. `bootstrap_servers`, if given, replaces the variable; variables replace
        values of the properties file. Raises `ConnectionConfigError`."""
        read = _file_values(environment.get("FRESHET_KAFKA_CONFIG"))
        values = {f.name: environment.get(f.metadata["variable"]) or read.get(f.name, "") for f in fields(cls)}
        if bootstrap_servers:
            values["bootstrap_servers"] = bootstrap_servers
        password_file = environment.get("FRESHET_SASL_PASSWORD_FILE")
        if password_file:
            try:
                values["sasl_password"] = Path(password_file).read_text().strip()
            except OSError as error:
                raise ConnectionConfigError(f"FRESHET_SASL_PASSWORD_FILE: {error}") from None
        values["security_protocol"] = values["security_protocol"].upper()
        values["sasl_mechanism"] = values["sasl_mechanism"].upper()
        return cls(**values)

    @staticmethod
    def is_given(environment: Mapping[str, str], bootstrap_servers: str | None = None) -> bool:
        """Whether the user named a Kafka in any of the ways that `from_environment` reads."""
        return bool(bootstrap_servers or any(environment.get(variable) for variable in _ADDRESSES))

    @property
    def servers(self) -> list[str]:
        return self.bootstrap_servers.split(",")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    def ssl_context(self) -> ssl.SSLContext:
        """A context that verifies the broker's certificate and host name."""
        context = ssl.create_default_context(cafile=self.ssl_cafile or None)
        if self.ssl_certfile:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile or None, self.ssl_key_password or None)
        return context

    def kafka_python(self) -> dict[str, Any]:
        """Keyword arguments of every kafka-python client."""
        settings: dict[str, Any] = {"bootstrap_servers": self.servers, "reconnect_backoff_max_ms": _RECONNECT_MS}
        if self.security_protocol:
            settings["security_protocol"] = self.security_protocol
        if self.uses_tls:
            settings["ssl_context"] = self.ssl_context()
        if self.uses_sasl:
            settings["sasl_mechanism"] = self.sasl_mechanism
            settings["sasl_plain_username"] = self.sasl_username
            settings["sasl_plain_password"] = self.sasl_password
        return settings

    def faust(self) -> dict[str, Any]:
        """Settings of a Faust app: the broker's address and, when there is security, its credentials."""
        settings: dict[str, Any] = {"broker": [f"aiokafka://{server}" for server in self.servers]}
        if self.uses_sasl or self.uses_tls:
            import faust  # takes a second to import; only the scorer, which imports it anyway, calls this
            from faust.types.auth import SASLMechanism

            context = self.ssl_context() if self.uses_tls else None
            settings["broker_credentials"] = (
                faust.SASLCredentials(
                    username=self.sasl_username,
                    password=self.sasl_password,
                    ssl_context=context,
                    mechanism=SASLMechanism(self.sasl_mechanism),
                )
                if self.uses_sasl
                else faust.SSLCredentials(context)
            )
        return settings


def _file_values(path: str | None) -> dict[str, str]:
    if not path:
        return {}
    try:
        return connection_values(read_properties(Path(path)), path)
    except PropertiesError as error:
        raise ConnectionConfigError(f"FRESHET_KAFKA_CONFIG: {error}") from None


def _addresses(servers: str) -> tuple[list[str], str]:
    """(host:port of each server, the protocol that all of them name or ""). Raises `ConnectionConfigError`.

    >>> _addresses("SASL_SSL://kafka-1, [::1]:9093")
    (['kafka-1:9092', '[::1]:9093'], 'SASL_SSL')
    """
    found, protocols = [], set()
    for server in filter(None, map(str.strip, servers.split(","))):
        match = _ADDRESS.fullmatch(server)
        if match is None or not 0 < int(match["port"] or _PORT) < 65536:
            raise ConnectionConfigError(f"{server!r} is no address: it must be host:port, like kafka-1:9092")
        if match["protocol"]:
            protocols.add(match["protocol"].upper())
        found.append(f"{match['host']}:{match['port'] or _PORT}")
    if len(protocols) > 1:
        raise ConnectionConfigError(f"{servers!r} names several security protocols: {', '.join(sorted(protocols))}")
    return found, next(iter(protocols), "")
