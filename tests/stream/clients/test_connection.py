"""One description of how to reach Kafka, whatever client library asks."""

import ssl
from pathlib import Path

import pytest

from stream.clients.connection import ConnectionConfigError, KafkaConnection

SCRAM = {
    "FRESHET_BOOTSTRAP_SERVERS": "one:9093,two:9093",
    "FRESHET_SECURITY_PROTOCOL": "sasl_ssl",
    "FRESHET_SASL_MECHANISM": "SCRAM-SHA-512",
    "FRESHET_SASL_USERNAME": "freshet",
    "FRESHET_SASL_PASSWORD": "hush-hush",
}


def test_without_security_there_is_only_an_address() -> None:
    connection = KafkaConnection.from_environment({"FRESHET_BOOTSTRAP_SERVERS": "one:9092, two:9092"})
    settings = connection.kafka_python()
    assert settings.pop("reconnect_backoff_max_ms") <= 1000  # after an outage nobody waits for long
    assert settings == {"bootstrap_servers": ["one:9092", "two:9092"]}
    assert connection.faust() == {"broker": ["aiokafka://one:9092", "aiokafka://two:9092"]}


def test_credentials_reach_both_libraries() -> None:
    connection = KafkaConnection.from_environment(SCRAM)
    settings = connection.kafka_python()
    assert isinstance(settings.pop("ssl_context"), ssl.SSLContext)
    del settings["reconnect_backoff_max_ms"]
    assert settings == {
        "bootstrap_servers": ["one:9093", "two:9093"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "freshet",
        "sasl_plain_password": "hush-hush",
    }
    credentials = connection.faust()["broker_credentials"]
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (credentials.username, credentials.password) == ("freshet", "hush-hush")


def test_tls_verifies_the_broker() -> None:
    context = KafkaConnection("one:9093", security_protocol="SSL").ssl_context()
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


def test_secrets_are_in_no_representation() -> None:
    connection = KafkaConnection.from_environment(SCRAM)
    assert "hush-hush" not in repr(connection) and "freshet" in repr(connection)


def test_the_environment_comes_before_the_file_and_an_argument_before_both(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(
        "# as Java clients name them\nbootstrap.servers = file:9092\nsecurity.protocol=SASL_PLAINTEXT\n"
        "sasl.mechanism=PLAIN\nsasl.username=from-file\nsasl.password=a=b#c\n"
    )
    environment = {"FRESHET_KAFKA_CONFIG": str(file), "FRESHET_SASL_USERNAME": "from-environment"}
    connection = KafkaConnection.from_environment(environment)
    assert (connection.bootstrap_servers, connection.sasl_username) == ("file:9092", "from-environment")
    assert connection.sasl_password == "a=b#c"
    assert KafkaConnection.from_environment(environment, "argument:9092").bootstrap_servers == "argument:9092"


def test_a_password_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\n")
    environment = SCRAM | {"FRESHET_SASL_PASSWORD": "", "FRESHET_SASL_PASSWORD_FILE": str(file)}
    assert KafkaConnection.from_environment(environment).sasl_password == "from the file"


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"FRESHET_BOOTSTRAP_SERVERS": ""}, "FRESHET_BOOTSTRAP_SERVERS"),
        ({"FRESHET_SECURITY_PROTOCOL": "TLS"}, "'TLS' is none of"),
        ({"FRESHET_SASL_MECHANISM": "GSSAPI"}, "'GSSAPI' is none of"),
        ({"FRESHET_SECURITY_PROTOCOL": ""}, "PLAINTEXT ignores it"),
        ({"FRESHET_SECURITY_PROTOCOL": "SSL"}, "SSL ignores it"),
        ({"FRESHET_SASL_PASSWORD": ""}, "needs FRESHET_SASL_USERNAME and a password"),
        ({"FRESHET_SSL_CAFILE": "/nowhere/ca.pem"}, "/nowhere/ca.pem is not a file"),
        ({"FRESHET_SASL_PASSWORD_FILE": "/nowhere/password"}, "FRESHET_SASL_PASSWORD_FILE"),
        ({"FRESHET_KAFKA_CONFIG": "/nowhere/client.properties"}, "FRESHET_KAFKA_CONFIG"),
    ],
)
def test_contradictions_are_refused_without_telling_secrets(change: dict[str, str], hint: str) -> None:
    with pytest.raises(ConnectionConfigError, match=hint) as refusal:
        KafkaConnection.from_environment(SCRAM | change)
    assert "hush-hush" not in str(refusal.value)


@pytest.mark.parametrize(
    ("environment", "argument", "given"),
    [
        ({}, None, False),
        ({"FRESHET_BOOTSTRAP_SERVERS": ""}, None, False),
        ({"FRESHET_BOOTSTRAP_SERVERS": "one:9092"}, None, True),
        ({"FRESHET_KAFKA_CONFIG": "client.properties"}, None, True),
        ({}, "one:9092", True),
    ],
)
def test_a_kafka_is_given_in_any_of_three_ways(environment: dict[str, str], argument: str | None, given: bool) -> None:
    assert KafkaConnection.is_given(environment, argument) is given
