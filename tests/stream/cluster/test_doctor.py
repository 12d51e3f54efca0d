"""A cluster is examined before it is used: what fits, what does not, and the command that mends it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from kafka.admin import (  # type: ignore[attr-defined]  # the stub has what Freshet calls
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from ops.local.broker import BrokerConfig, LocalBroker, free_ports
from stream.cli.cluster import doctor
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.cluster.doctor import Finding, examine
from stream.cluster.rights import PROCESSES, needed_rights
from stream.wire.topics import TopicPlan, ensure_topics
from tests.support.commands import freshet

pytestmark = pytest.mark.kafka
PLAN = TopicPlan("shop-", partitions=2)


def as_user(servers: str, name: str) -> KafkaConnection:
    return KafkaConnection(
        servers,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=name,
        sasl_password=f"{name}-secret",
    )


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A broker with access control lists; `admin` may do everything, `worker` nothing yet."""
    port, controller = free_ports("127.0.0.1", 2)
    listeners = f"SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
    login = "org.apache.kafka.common.security.scram.ScramLoginModule"
    config = BrokerConfig(
        port=port,
        controller_port=controller,
        scram_users={"admin": "admin-secret", "worker": "worker-secret"},
        properties={
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "inter.broker.listener.name": "SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": (
                f'{login} required username="admin" password="admin-secret";'
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:admin;User:ANONYMOUS",
        },
    )
    with LocalBroker(config) as broker:
        ensure_topics(as_user(broker.bootstrap_servers, "admin"), PLAN)
        yield broker.bootstrap_servers


def grant(servers: str, kind: ResourceType, name: str, operations: tuple[str, ...]) -> None:
    admin: Any = KafkaAdminClient(**as_user(servers, "admin").kafka_python())
    admin.create_acls(
        [
            ACL("User:worker", "*", ACLOperation[op], ACLPermissionType.ALLOW, ResourcePattern(kind, name))
            for op in operations
        ]
    )
    admin.close()


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict == "does not fit"]


def test_a_cluster_that_fits(kafka: KafkaConnection, topics: TopicPlan) -> None:
    findings = list(examine(kafka, topics))
    assert bad(findings) == []
    assert {"updater", "scorer", "trainer", topics.interactions} <= {finding.subject for finding in findings}


def test_a_right_that_is_missing_is_named_with_the_command_that_grants_it(guarded: str) -> None:
    worker = as_user(guarded, "worker")
    for right in needed_rights(PLAN, "scorer"):
        kinds = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
        operations = tuple(op for op in right.operations if (right.name, op) != (PLAN.recommendations, "WRITE"))
        grant(guarded, kinds[right.resource], right.name, operations)
    (finding,) = bad(list(examine(worker, PLAN, ("scorer",))))
    assert finding.found == f"lacks WRITE on topic {PLAN.recommendations}"
    assert finding.mend == (
        f"kafka-acls --add --allow-principal User:NAME --operation Write --topic '{PLAN.recommendations}'"
    )
    grant(guarded, ResourceType.TOPIC, PLAN.recommendations, ("WRITE",))
    assert bad(list(examine(worker, PLAN, ("scorer",)))) == []


def test_a_transactional_id_that_is_refused_is_named(guarded: str) -> None:
    found = [finding.found for finding in bad(list(examine(as_user(guarded, "worker"), PLAN, ("updater",))))]
    assert "lacks WRITE, DESCRIBE on transactional-id shop-freshet-updater-" in found


def test_a_worker_without_a_right_says_which_and_is_not_started_again(guarded: str, tmp_path: Path) -> None:
    """Exit code 2, with which a supervisor ends: another start would be refused alike."""

    def refusal(process: str, plan: TopicPlan) -> str:
        done = freshet(
            process,
            *("--bootstrap-servers", guarded, "--prefix", plan.prefix, "--state-dir", str(tmp_path / process)),
            *("--partitions", str(plan.partitions)),
            *("--port" if process == "api" else "--metrics-port", str(free_ports("127.0.0.1", 1)[0])),
            environment={
                "FRESHET_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "FRESHET_SASL_MECHANISM": "SCRAM-SHA-512",
                "FRESHET_SASL_USERNAME": "worker",
                "FRESHET_SASL_PASSWORD": "worker-secret",
            },
        )
        assert done.exit_code == 2 and "worker-secret" not in done.errors, done
        return done.errors

    for spec in PLAN.specs():  # everything but the transactional id
        grant(guarded, ResourceType.TOPIC, spec.name, ("READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"))
    said = refusal("updater", PLAN)
    assert "may not write under the transactional id shop-freshet-updater-" in said
    assert "--transactional-id 'shop-freshet-updater-" in said and "freshet doctor" in said
    assert "GroupAuthorizationFailedError: shop-freshet-trainer. `freshet doctor` names" in refusal("trainer", PLAN)
    grant(guarded, ResourceType.GROUP, "shop-freshet-trainer", ("READ", "DESCRIBE"))
    assert "--transactional-id 'shop-models-trainer'" in refusal("trainer", PLAN)

    apart = TopicPlan("apart-", partitions=1)
    ensure_topics(as_user(guarded, "admin"), apart)
    for spec in apart.specs():
        grant(guarded, ResourceType.TOPIC, spec.name, ("READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"))
    for process in ("scorer", "api"):  # whose clients would try for ever, or end in a thread
        assert f"GroupAuthorizationFailedError: apart-freshet-{process}. `freshet doctor`" in refusal(process, apart)

    with admin_client(as_user(guarded, "admin")) as admin:
        hidden, unset = TopicPlan("hidden-", partitions=1), TopicPlan("unset-", partitions=1)
        ensure_topics(as_user(guarded, "admin"), hidden)
        ensure_topics(as_user(guarded, "admin"), unset)
        assert admin.list_topics()
    said = refusal("updater", hidden)  # which it takes for missing, and may not make
    assert "no right to create or see" in said and "hidden-interactions" in said and "--operation Create" in said
    for spec in unset.specs():
        grant(guarded, ResourceType.TOPIC, spec.name, ("READ", "WRITE", "DESCRIBE"))
    said = refusal("updater", unset)
    assert "unset-interactions does not show its settings" in said
    assert "kafka-acls --add --operation DescribeConfigs --topic unset-interactions" in said


def test_every_process_can_be_examined() -> None:
    (option,) = [param for param in doctor.params if param.name == "process"]
    assert isinstance(option.type, click.Choice) and tuple(option.type.choices) == PROCESSES


def test_brokers_that_do_not_answer_are_one_finding() -> None:
    (port,) = free_ports("127.0.0.1", 1)
    (finding,) = examine(KafkaConnection(f"127.0.0.1:{port}"), PLAN)
    assert finding.verdict == "does not fit"
    assert f"127.0.0.1:{port}" in finding.found
