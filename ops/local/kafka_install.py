"""Java and Kafka's jars, which a local Kafka needs on this machine; Maven downloads the jars once into a cache."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["BrokerError", "find_java", "resolve_jars"]

log = logging.getLogger(__name__)

_POM = Path(__file__).with_name("kafka-pom.xml")
_JAVA_AT_LEAST = 17
_WAYS_OUT = (
    "Three ways on: install OpenJDK 17 or newer and Maven (Debian: apt-get install openjdk-17-jre-headless maven); "
    "start Kafka in containers with ops/compose.yaml; or set FRESHET_BOOTSTRAP_SERVERS to a Kafka you have."
)


class BrokerError(RuntimeError):
    """The broker cannot be resolved or started; the message says what to do."""


def resolve_jars(cache_dir: Path | None = None) -> Path:
    """The folder of Kafka's jars, downloaded by Maven when it is not cached. Raises `BrokerError`."""
    version = ElementTree.parse(_POM).findtext(".//{*}kafka.version")
    cache = cache_dir or _default_cache()
    jars = cache / f"kafka-{version}-{_pom_fingerprint()}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(f"Maven (mvn) is not installed and the Kafka jars are not cached in {jars}. {_WAYS_OUT}")
    cache.mkdir(parents=True, exist_ok=True)
    log.info("resolving Apache Kafka %s into %s (once)", version, jars)
    with tempfile.TemporaryDirectory(dir=cache, prefix="resolving-") as folder:
        command = [maven, "-B", "-q", "-f", str(_POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        result = subprocess.run(
            [*command, f"-DoutputDirectory={folder}/jars"], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise BrokerError(f"Maven could not resolve Apache Kafka:\n{result.stdout[-2000:]}\n{_WAYS_OUT}")
        try:
            (Path(folder) / "jars").rename(jars)
        except OSError:
            if not jars.is_dir():  # otherwise another process was first, with the same content
                raise
    return jars


def _default_cache() -> Path:
    if chosen := os.environ.get("FRESHET_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "freshet"


def _pom_fingerprint() -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, _POM.read_text()).hex[:8]


def find_java() -> str:
    """The `java` program, from JAVA_HOME or else from the path. Raises `BrokerError` when it is missing or too old."""
    home = os.environ.get("JAVA_HOME")
    java = (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")
    if java is None:
        raise BrokerError(f"Java is not installed. {_WAYS_OUT}")
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = shown.partition('version "')[2].partition('"')[0]
    major = version.split(".")[0].split("-")[0]
    if not major.isdigit() or int(major) < _JAVA_AT_LEAST:
        raise BrokerError(f"Java {_JAVA_AT_LEAST} or newer is needed, {java} is {version or shown!r}. {_WAYS_OUT}")
    return java
