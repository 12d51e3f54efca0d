"""Reads client settings from the properties files of Java clients and of librdkafka.

The two have different names for some settings, and both names are read. A setting about security that is not understood
is refused, because a connection without it may be less secure than its owner wants. Any other setting that is not
understood is logged and not used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["PropertiesError", "connection_values", "read_properties"]

log = logging.getLogger(__name__)

# Property -> field of `KafkaConnection`.
_NAMES = {
    "bootstrap.servers": "bootstrap_servers",
    "metadata.broker.list": "bootstrap_servers",
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_username",
    "sasl.password": "sasl_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.truststore.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.keystore.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_key_password",
}
# Settings that are accepted with these values, because they ask for what Freshet does anyway (None: with any value).
_GIVEN = {
    "ssl.endpoint.identification.algorithm": ("https",),
    "enable.ssl.certificate.verification": ("true",),
    "ssl.truststore.type": ("pem",),
    "ssl.keystore.type": ("pem",),
    "ssl.protocol": ("tls", "tlsv1.2", "tlsv1.3"),
    "ssl.enabled.protocols": None,
}
_SECURITY = ("sasl.", "ssl.", "security.", "enable.ssl", "enable.sasl")
_JAAS = re.compile(r"\s*(?P<module>[\w.]+)\s+required(?P<options>.*?);?\s*", re.DOTALL)
_OPTION = re.compile(r"""(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s;]+))""")
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


class PropertiesError(ValueError):
    """A file that cannot be read, or a setting that is not understood. No message holds a value that may be secret."""


def read_properties(path: Path) -> dict[str, str]:
    """The pairs of a properties file: `=`, `:` or blanks between name and value, lines continued by a backslash,
    comments behind `#` or `!`. Raises `PropertiesError`."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PropertiesError(f"{path}: {error}") from None
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        line = line.lstrip()
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            line = line[:-1] + next(lines, "").lstrip()
        name, value = _pair(line)
        found[name] = value
    return found


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _pair(line: str) -> tuple[str, str]:
    match = re.match(r"((?:[^\\\s=:]|\\.)+)\s*[=:]?\s*(.*)", line, re.DOTALL)
    if match is None:
        return line.strip(), ""
    return _unescaped(match[1]), _unescaped(match[2].rstrip())


def _unescaped(text: str) -> str:
    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", lambda m: _character(m[1]), text)


def _character(escape: str) -> str:
    return chr(int(escape[1:], 16)) if len(escape) == 5 else _ESCAPES.get(escape, escape)


def connection_values(properties: Mapping[str, str], source: str) -> dict[str, str]:
    """Values by field of `KafkaConnection`. Raises `PropertiesError` for settings about security that are not
    understood, and for settings that contradict each other."""
    values: dict[str, str] = {}
    unused, refused = [], []
    _refuse_stores(properties, source)
    for name, value in properties.items():
        field = _NAMES.get(name)
        if field is not None:
            if value and values.setdefault(field, value) != value:
                raise PropertiesError(f"{source}: {name} contradicts another name of the same setting")
        elif name == "sasl.jaas.config":
            values |= _jaas(value, source)
        elif name in _GIVEN:
            allowed = _GIVEN[name]
            if allowed is not None and value.lower() not in allowed:
                raise PropertiesError(
                    f"{source}: {name}={value}: only {' or '.join(allowed)} is supported. {_way(name)}"
                )
        elif name.startswith(_SECURITY):
            refused.append(name)
        else:
            unused.append(name)
    if refused:
        raise PropertiesError(
            f"{source}: {', '.join(refused)}: not understood, and left out it would change how the connection is "
            f"secured; understood are {', '.join([*_NAMES, 'sasl.jaas.config'])}"
        )
    if unused:
        log.warning("%s: not used, since it does not say how to reach Kafka: %s", source, ", ".join(unused))
    return values


def _way(name: str) -> str:
    if name.endswith("store.type"):
        return "Convert the store to PEM: openssl pkcs12 -in STORE -out STORE.pem (a JKS store first by keytool)"
    return "A certificate that is not verified protects nothing"


def _refuse_stores(properties: Mapping[str, str], source: str) -> None:
    for name in ("ssl.truststore.location", "ssl.keystore.location"):
        path = properties.get(name, "")
        if path.lower().endswith((".jks", ".p12", ".pfx", ".keystore", ".truststore")):
            raise PropertiesError(f"{source}: {name}={path} is no PEM file. {_way('store.type')}")


def _jaas(value: str, source: str) -> dict[str, str]:
    """User and password of Java's login module. Raises `PropertiesError`."""
    match = _JAAS.fullmatch(value)
    if match is None:
        raise PropertiesError(f"{source}: sasl.jaas.config is not `MODULE required username=... password=...;`")
    module = match["module"].rpartition(".")[2]
    if module not in ("PlainLoginModule", "ScramLoginModule"):
        raise PropertiesError(
            f"{source}: sasl.jaas.config names {module}; PlainLoginModule or ScramLoginModule is supported"
        )
    options = {
        name: double.replace('\\"', '"').replace("\\\\", "\\") if double else single or plain
        for name, double, single, plain in _OPTION.findall(match["options"])
    }
    return {f"sasl_{name}": options[name] for name in ("username", "password") if name in options}
