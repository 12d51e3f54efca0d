"""How to reach Kafka: one description, turned into the settings of each client library.

Read from the environment (`FRESHET_*`) and, below it, from a properties file named by `FRESHET_KAFKA_CONFIG` with the
names the Java clients use (`bootstrap.servers`, `security.protocol`, `sasl.username`, `ssl.ca.location`, ...).
Secrets come from the environment, from that file, or from a file named by `FRESHET_SASL_PASSWORD_FILE`; they are never
part of a representation.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["ConnectionConfigError", "KafkaConnection"]

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_ADDRESSES = ("FRESHET_BOOTSTRAP_SERVERS", "FRESHET_KAFKA_CONFIG")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class ConnectionConfigError(ValueError):
    """Settings that contradict each other or name what is not there."""


def _setting(variable: str, prop: str, secret: bool = False) -> Any:
    return field(default="", repr=not secret, metadata={"variable": variable, "property": prop})


@dataclass(frozen=True)
class KafkaConnection:
    bootstrap_servers: str = _setting("FRESHET_BOOTSTRAP_SERVERS", "bootstrap.servers")
    security_protocol: str = _setting("FRESHET_SECURITY_PROTOCOL", "security.protocol")  # PLAINTEXT when empty
    sasl_mechanism: str = _setting("FRESHET_SASL_MECHANISM", "sasl.mechanism")
    sasl_username: str = _setting("FRESHET_SASL_USERNAME", "sasl.username")
    sasl_password: str = _setting("FRESHET_SASL_PASSWORD", "sasl.password", secret=True)
    ssl_cafile: str = _setting("FRESHET_SSL_CAFILE", "ssl.ca.location")  # PEM; the system's authorities when empty
    ssl_certfile: str = _setting("FRESHET_SSL_CERTFILE", "ssl.certificate.location")  # PEM of this client
    ssl_keyfile: str = _setting("FRESHET_SSL_KEYFILE", "ssl.key.location")
    ssl_key_password: str = _setting("FRESHET_SSL_KEY_PASSWORD", "ssl.key.password", secret=True)

    def __post_init__(self) -> None:
        if not self.bootstrap_servers:
            raise ConnectionConfigError("no bootstrap servers: set FRESHET_BOOTSTRAP_SERVERS or --bootstrap-servers")
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
        """`bootstrap_servers`, when given, comes before the environment, and the environment before the file."""
        properties = _read_properties(environment.get("FRESHET_KAFKA_CONFIG"))
        values = {
            f.name: environment.get(f.metadata["variable"]) or properties.get(f.metadata["property"], "")
            for f in fields(cls)
        }
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
        return [server.strip() for server in self.bootstrap_servers.split(",") if server.strip()]

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    def ssl_context(self) -> ssl.SSLContext:
        """Verifies the broker's certificate and host name."""
        context = ssl.create_default_context(cafile=self.ssl_cafile or None)
        if self.ssl_certfile:
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile or None, self.ssl_key_password or None)
        return context

    def kafka_python(self) -> dict[str, Any]:
        """Keyword arguments of every kafka-python client."""
        settings: dict[str, Any] = {"bootstrap_servers": self.servers}
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
            import faust  # a second to import, for the one process that has it anyway
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


def _read_properties(path: str | None) -> dict[str, str]:
    if not path:
        return {}
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise ConnectionConfigError(f"FRESHET_KAFKA_CONFIG: {error}") from None
    pairs = (line.partition("=") for line in lines if line.strip() and not line.lstrip().startswith(("#", "!")))
    return {name.strip(): value.strip() for name, _, value in pairs}
