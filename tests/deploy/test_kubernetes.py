"""The manifests render, are valid, agree with the rest of the tree, and their pods serve lists."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ops.metrics import MetricsConfig
from stream.api.config import ApiConfig
from stream.api.tokens import add_token
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan, ensure_topics
from tests.support.api import ask
from tests.support.pods import Cluster, of_kind, render
from tests.system.test_security import NAME, SECRET, secured  # noqa: F401  (a fixture)

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "kubernetes"
STATEFUL = {"freshet-updater", "freshet-scorer", "freshet-trainer", "freshet-api"}


@pytest.fixture(scope="module")
def example() -> list[dict[str, Any]]:
    return render(DEPLOY / "example")


@pytest.fixture(scope="module")
def with_sink(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The base and the component that the example does not have."""
    overlay = tmp_path_factory.mktemp("overlay")
    relative = Path(*[".."] * (len(overlay.parts) - 1)) / DEPLOY.relative_to("/")
    text = {"resources": [str(relative / "base")], "components": [str(relative / "redis-sink")]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return render(overlay)


def workloads(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found["spec"] for found in of_kind(documents, "StatefulSet", "Deployment")}


@pytest.mark.parametrize("version", ["1.29", "1.32", "1.35"])
@pytest.mark.parametrize("rendered", ["example", "with_sink"])
def test_every_manifest_fits_the_schemas_of_kubernetes(
    rendered: str, version: str, request: pytest.FixtureRequest
) -> None:
    documents = request.getfixturevalue(rendered)
    checked = [document for document in documents if "monitoring.coreos.com" not in document["apiVersion"]]
    assert len(checked) > 10
    for document in checked:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_finds_what_is_wrong(example: list[dict[str, Any]]) -> None:
    broken = json.loads(json.dumps(of_kind(example, "StatefulSet")[0]))
    broken["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, "1.32", strict=True)


def test_two_updaters_two_scorers_one_trainer_and_what_keeps_state_has_a_disk(example: list[dict[str, Any]]) -> None:
    found = workloads(example)
    assert {name: spec["replicas"] for name, spec in found.items()} == {
        "freshet-updater": 2,
        "freshet-scorer": 2,
        "freshet-api": 2,
        "freshet-trainer": 1,
    }
    assert {one["metadata"]["name"] for one in of_kind(example, "StatefulSet")} == STATEFUL
    for spec in found.values():
        assert [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == ["state"]
        (container,) = spec["template"]["spec"]["containers"]
        assert any(argument.startswith("--state-dir=/state/") for argument in container["args"])


def test_every_pod_is_probed_bounded_and_locked_down(example: list[dict], with_sink: list[dict]) -> None:
    for spec in [*workloads(example).values(), *workloads(with_sink).values()]:
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        paths = {which: container[f"{which}Probe"]["httpGet"]["path"] for which in ("startup", "liveness", "readiness")}
        assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"} and container["resources"]["limits"]
        assert pod["enableServiceLinks"] is False  # FRESHET_API_PORT=tcp://... would be taken for a setting
        assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_disruptions_take_one_pod_at_a_time(example: list[dict]) -> None:
    budgets = {one["metadata"]["name"]: one["spec"] for one in of_kind(example, "PodDisruptionBudget")}
    assert budgets.keys() == {"freshet-updater", "freshet-scorer", "freshet-api"}
    for name, budget in budgets.items():
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}


def test_ports_are_those_of_the_settings(example: list[dict], with_sink: list[dict]) -> None:
    ports = {
        f"freshet-{kind}": getattr(MetricsConfig(), f"{kind}_port") for kind in ("updater", "scorer", "trainer", "sink")
    }
    ports["freshet-api"] = ApiConfig().port
    for name, spec in (workloads(example) | workloads(with_sink)).items():
        (container,) = spec["template"]["spec"]["containers"]
        (port,) = container["ports"]
        assert port["containerPort"] == ports[name]
        assert any(argument.endswith(f"port={ports[name]}") for argument in container["args"])


def test_services_and_monitors_reach_the_pods_by_the_names_that_rules_ask_for(example: list[dict]) -> None:
    services = of_kind(example, "Service")
    labels = {name: spec["template"]["metadata"]["labels"] for name, spec in workloads(example).items()}
    for service in services:
        reached = [name for name, own in labels.items() if service["spec"]["selector"].items() <= own.items()]
        assert len(reached) == 1, service["metadata"]["name"]
    headless = {one["metadata"]["name"] for one in services if one["spec"].get("clusterIP") == "None"}
    assert {spec["serviceName"] for spec in workloads(example).values()} == headless
    scraped = set()
    for monitor in of_kind(example, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        for service in services:
            selected = monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            if selected and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]:
                scraped.add(service["metadata"]["labels"].get(monitor["spec"]["jobLabel"]))
    assert scraped - {None} == STATEFUL
    asked = set(re.findall(r'job="([\w-]+)"', (ROOT / "ops" / "alerts.yml").read_text()))
    assert asked <= scraped


def test_the_rules_are_those_of_the_tree(example: list[dict]) -> None:
    (rules,) = of_kind(example, "PrometheusRule")
    assert rules["spec"]["groups"] == yaml.safe_load((ROOT / "ops" / "alerts.yml").read_text())["groups"]


@pytest.mark.kafka
@pytest.mark.faults
@pytest.mark.long
@pytest.mark.timeout(500)
def test_the_pods_of_the_example_serve_lists(
    example: list[dict],
    secured: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    """Their commands and environment, over SASL_SSL; one broker stands for the three."""
    plan = TopicPlan(partitions=6)
    ensure_topics(KafkaConnection.from_environment(secured), plan)  # one broker cannot hold three copies
    tokens = tmp_path / "tokens.toml"
    token = add_token(tokens, "shop", ["read", "write"])
    secrets = {
        "freshet-kafka-access": {
            "username": NAME,
            "password": SECRET,
            "ca.crt": Path(secured["FRESHET_SSL_CAFILE"]).read_text(),
        },
        "freshet-api-tokens": {"tokens.toml": tokens.read_text()},
    }
    names = {f"kafka-{n}.kafka:9093": secured["FRESHET_BOOTSTRAP_SERVERS"] for n in range(3)}
    cluster = Cluster(example, tmp_path / "pods", secrets, names)
    headers = {"authorization": f"Bearer {token}"}
    first, second = (f"http://{pod.ip}:8080" for pod in cluster.pods if pod.name.startswith("freshet-api-"))
    try:
        cluster.start()
        until_probed(cluster, "startup", "freshet-")
        for kind in ("updater", "trainer", "api"):
            until_probed(cluster, "readiness", f"freshet-{kind}-")
        events = [{"user": f"u{n}", "item": f"i{n % 5}"} for n in range(40)]

        def send() -> list[dict[str, Any]]:
            sent = ask(f"{first}/v1/events", "POST", events, headers)
            assert sent.status == 202, sent.body
            return sent.json["receipts"]

        # A scorer that has met no event yet has nothing to answer with.
        until_probed(cluster, "readiness", "freshet-scorer-", send)
        for n, receipt in enumerate(send()):
            url = f"{second}/v1/users/u{n}/recommendations?as_of={receipt['as_of']}"
            deadline = time.monotonic() + 60
            while (answer := ask(url, headers=headers)).status == 503 and time.monotonic() < deadline:
                time.sleep(0.5)
            assert answer.status == 200 and answer.json["known"], answer.body
            items = {scored["item"] for scored in answer.json["items"]}
            assert items and items <= {f"i{other}" for other in range(5) if other != n % 5}
    finally:
        cluster.stop()
    assert SECRET not in "".join((tmp_path / "pods" / pod.name / "log").read_text() for pod in cluster.pods)


def until_probed(
    cluster: Cluster, which: str, begin: str, meanwhile: Callable[[], object] = lambda: None, seconds: float = 180.0
) -> None:
    deadline = time.monotonic() + seconds
    while why := {pod.name: no for pod in cluster.pods if pod.name.startswith(begin) and (no := pod.probe(which))}:
        assert time.monotonic() < deadline, why
        meanwhile()
        time.sleep(0.5)
