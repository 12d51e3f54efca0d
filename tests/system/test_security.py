"""The whole pipeline over TLS with SCRAM, on a real broker that takes nothing else."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer

from ops.local.broker import BrokerConfig, LocalBroker
from stream.local.pipeline import free_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
NAME, SECRET = "freshet", "correct-horse-battery"


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificates(folder: Path) -> tuple[Path, Path]:
    """An authority, and a key with its certificate for 127.0.0.1 in one file, as Kafka reads PEM."""
    ca, ca_key, key, request, certificate = (
        folder / name for name in ("ca.pem", "ca.key", "broker.key", "broker.csr", "broker.crt")
    )
    subject = ("-nodes", "-newkey", "rsa:2048", "-subj")
    openssl("req", "-x509", *subject, "/CN=Test authority", "-days", "2", "-keyout", str(ca_key), "-out", str(ca))
    openssl("req", *subject, "/CN=127.0.0.1", "-keyout", str(key), "-out", str(request))
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ("-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial", "-days", "2", "-extfile", str(extensions))
    openssl("x509", "-req", "-in", str(request), *signing, "-out", str(certificate))
    keystore = folder / "broker.pem"
    keystore.write_text(key.read_text() + certificate.read_text())
    return ca, keystore


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Runs the broker; the environment of its clients."""
    folder = tmp_path_factory.mktemp("secured")
    ca, keystore = certificates(folder)
    port, controller = free_port(), free_port()
    login = "org.apache.kafka.common.security.scram.ScramLoginModule"
    listeners = f"SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
    config = BrokerConfig(
        port=port,
        controller_port=controller,
        scram_users={NAME: SECRET},
        properties={
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                f'{login} required username="{NAME}" password="{SECRET}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(ca),
        },
    )
    with LocalBroker(config) as broker:
        yield {
            "FRESHET_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "FRESHET_SECURITY_PROTOCOL": "SASL_SSL",
            "FRESHET_SASL_MECHANISM": "SCRAM-SHA-512",
            "FRESHET_SASL_USERNAME": NAME,
            "FRESHET_SASL_PASSWORD": SECRET,
            "FRESHET_SSL_CAFILE": str(ca),
        }


@contextmanager
def command(environment: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A `freshet` command and the lines it writes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stream.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    output = process.stdout
    assert output is not None
    reader = threading.Thread(target=lambda: lines.extend(output))
    reader.start()
    try:
        yield process, lines
    finally:
        process.terminate()
        process.wait(30)
        reader.join()
        output.close()


def test_an_event_becomes_a_list_over_tls_and_scram_and_the_secret_stays_secret(
    secured: dict[str, str], tmp_path: Path
) -> None:
    client = {
        "bootstrap.servers": secured["FRESHET_BOOTSTRAP_SERVERS"],
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": NAME,
        "sasl.password": SECRET,
        "ssl.ca.location": secured["FRESHET_SSL_CAFILE"],
    }
    arguments = ("up", "--partitions", "2", "--state-dir", str(tmp_path))
    with command(secured, *arguments) as (process, lines):
        producer = Producer(client | {"partitioner": "murmur2_random"})
        consumer = Consumer(client | {"group.id": "reader", "auto.offset.reset": "earliest"})
        deadline, answer = time.monotonic() + 150, None
        consumer.subscribe(["recommendations"])
        while answer is None:
            assert process.poll() is None and time.monotonic() < deadline, "".join(lines[-40:])
            if "interactions" in producer.list_topics(timeout=10).topics:
                event = {"user": "ann", "item": "tea", "timestamp": int(time.time() * 1000)}
                producer.produce("interactions", key="ann", value=json.dumps(event))
                producer.flush(10)
            message = consumer.poll(1.0)
            if message is not None and not message.error():
                answer = json.loads(message.value())
        assert answer["user"] == "ann"
        workers = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(workers) >= 4
        assert not [worker.pid for worker in workers if SECRET in " ".join(worker.cmdline())]
        consumer.close()
    assert not [line for line in lines if SECRET in line]
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize("change", [{"FRESHET_SASL_PASSWORD": "wrong-wrong-wrong"}, {"FRESHET_SSL_CAFILE": ""}])
def test_a_wrong_password_or_authority_ends_the_command_and_no_secret_is_told(
    change: dict[str, str], secured: dict[str, str]
) -> None:
    with command({**secured, **change}, "--log-level", "debug", "updater", "--metrics-port", "0") as (process, lines):
        assert process.wait(60) != 0
    said = "".join(lines)
    assert "certificates and credentials" in said
    assert "wrong-wrong-wrong" not in said and SECRET not in said
