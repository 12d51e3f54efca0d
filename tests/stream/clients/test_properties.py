"""Files written for other clients say how to reach Kafka here too, or are refused by name."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.clients.connection import ConnectionConfigError, KafkaConnection
from stream.clients.properties import PropertiesError, connection_values, read_properties

JAVA = """
# a Java client's
bootstrap.servers: SASL_SSL://kafka-1:9093,kafka-2:9093
security.protocol = SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\
    username="ann" \\
    password="p=a\\\\\\"b;c";
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.endpoint.identification.algorithm=https
client.id=shop
"""
LIBRDKAFKA = """
metadata.broker.list=kafka-1
security.protocol=sasl_ssl
sasl.mechanisms=SCRAM-SHA-512
sasl.username=ann
sasl.password=secret
ssl.ca.location={ca}
enable.ssl.certificate.verification=true
"""


def connect(folder: Path, text: str, **environment: str) -> KafkaConnection:
    ca = folder / "ca.pem"
    ca.touch()
    file = folder / "client.properties"
    file.write_text(text.replace("{ca}", str(ca)))
    return KafkaConnection.from_environment({"FRESHET_KAFKA_CONFIG": str(file), **environment})


def test_a_java_clients_file_is_read_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        connection = connect(tmp_path, JAVA)
    assert connection.servers == ["kafka-1:9093", "kafka-2:9093"]
    assert (connection.sasl_username, connection.sasl_password) == ("ann", 'p=a"b;c')
    assert connection.ssl_cafile.endswith("ca.pem")
    assert "client.id" in caplog.text  # what is not used is named


def test_every_way_to_write_a_properties_file_is_read(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    text = rf"""! a comment of the other kind
bootstrap.servers kafka-1:9093
security.protocol   :   SASL_SSL
sasl.mechanism=PLAIN
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username='ann' password='päss';
ssl.ca.location={tmp_path}/ca.pem
ssl.certificate.location={tmp_path}/cert.pem
ssl.key.location={tmp_path}/key.pem
ssl.key.password=of the key
"""
    connection = connect(tmp_path, text)
    assert (connection.servers, connection.security_protocol) == (["kafka-1:9093"], "SASL_SSL")
    assert (connection.sasl_username, connection.sasl_password) == ("ann", "päss")
    assert (connection.ssl_certfile, connection.ssl_keyfile) == (f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem")
    assert connection.ssl_key_password == "of the key"
    keystore = text.replace("ssl.certificate.location", "ssl.keystore.location")
    assert connect(tmp_path, keystore).ssl_certfile == f"{tmp_path}/cert.pem"


def test_a_file_for_librdkafka_is_read_whole(tmp_path: Path) -> None:
    connection = connect(tmp_path, LIBRDKAFKA)
    assert (connection.servers, connection.security_protocol) == (["kafka-1:9092"], "SASL_SSL")
    assert (connection.sasl_mechanism, connection.sasl_password) == ("SCRAM-SHA-512", "secret")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("sasl.oauthbearer.token.endpoint.url=x", "sasl.oauthbearer.token.endpoint.url: not understood"),
        ("ssl.endpoint.identification.algorithm=", "only https is supported"),
        ("enable.ssl.certificate.verification=false", "protects nothing"),
        ("ssl.truststore.location=/etc/trust.jks", "is no PEM file. Convert"),
        ("ssl.truststore.type=JKS", "only pem is supported"),
        ("sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required;", "Krb5LoginModule"),
        ("sasl.jaas.config=nonsense", "is not `MODULE required"),
        ("sasl.mechanisms=PLAIN", "contradicts"),
    ],
)
def test_what_would_leave_a_connection_half_secured_is_refused_by_name(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(ConnectionConfigError, match=why) as refused:
        connect(
            tmp_path,
            f"{LIBRDKAFKA}sasl.mechanism=SCRAM-SHA-512\n{line}\n".replace("\nsasl.mechanisms=SCRAM-SHA-512", ""),
        )
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("kafka-1", ["kafka-1:9092"]),
        ("kafka-1:9093, kafka-2,", ["kafka-1:9093", "kafka-2:9092"]),
        ("PLAINTEXT://kafka-1:9092", ["kafka-1:9092"]),
        ("[::1]:9092", ["[::1]:9092"]),
    ],
)
def test_addresses_are_read_alike_for_every_client(servers: str, expected: list[str]) -> None:
    connection = KafkaConnection(servers)
    assert connection.kafka_python()["bootstrap_servers"] == expected
    assert connection.faust()["broker"] == [f"aiokafka://{server}" for server in expected]


def test_the_protocol_that_stands_before_an_address_is_used() -> None:
    connection = KafkaConnection(
        "SASL_SSL://kafka-1:9093", sasl_mechanism="PLAIN", sasl_username="a", sasl_password="b"
    )
    assert connection.kafka_python()["security_protocol"] == "SASL_SSL"
    assert connection.kafka_python()["bootstrap_servers"] == ["kafka-1:9093"]


@pytest.mark.parametrize(
    ("servers", "why"),
    [
        ("127.0.0.1:abc", "'127.0.0.1:abc' is no address"),
        ("kafka:99999", "is no address"),
        ("http://kafka:9092/path", "is no address"),
        ("SSL://a:1,PLAINTEXT://b:1", "several security protocols"),
        ("HTTP://a:1", "'HTTP' is none of"),
    ],
)
def test_what_is_no_address_is_refused_by_name(servers: str, why: str) -> None:
    with pytest.raises(ConnectionConfigError, match=why):
        KafkaConnection(servers)


def test_an_address_that_contradicts_the_protocol_is_refused() -> None:
    with pytest.raises(ConnectionConfigError, match="says SASL_SSL, the security protocol is SSL"):
        KafkaConnection("SASL_SSL://a:1", security_protocol="SSL")


words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=12).map(str.strip)


@given(st.dictionaries(words.filter(lambda w: w and w[0] not in "#!"), words, max_size=5))
def test_any_value_survives_the_file(tmp_path_factory: pytest.TempPathFactory, pairs: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        return "".join(f"\\{c}" if c in "\\=: #!" else c for c in text)

    file = tmp_path_factory.mktemp("properties") / "file"
    file.write_text("\n".join(f"{escaped(name)}={escaped(value)}" for name, value in pairs.items()))
    assert read_properties(file) == pairs


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PropertiesError, match="nowhere"):
        read_properties(tmp_path / "nowhere")
    assert connection_values({}, "file") == {}
