"""Requests that nobody meant, generated from the API's own description: the answer is what the description says, or a
4xx. A fault of the service (5xx but the 503 that is described) fails, and so does an answer that is not described."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import APIOperation, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema

from stream.api.tokens import add_token
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan
from tests.support.api import Instance, Writer, api

pytestmark = pytest.mark.kafka

OPERATIONS = 10
EXAMPLES = 40
MANY_EXAMPLES = 10_000 // (2 * OPERATIONS) + 1


@pytest.fixture(scope="module")
def plan() -> TopicPlan:
    return TopicPlan(prefix="fuzz-", partitions=2)


@pytest.fixture(scope="module")
def secret_and_instance(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Instance]]:
    folder = tmp_path_factory.mktemp("fuzz")
    secret = add_token(folder / "tokens.toml", "fuzzer", ["admin"])
    limits = {"wait_seconds": 0.02, "requests_per_second": 1e6}
    with api(kafka, plan, folder / "state", tokens_file=folder / "tokens.toml", **limits) as instance:
        writer = Writer(kafka, plan)
        for n in range(20):
            writer.list_of(str(n), [f"i{m}" for m in range(20)])
            writer.history_of(str(n), {"tea": 1000, "cups": 2000})
        writer.close()
        yield secret, instance


@pytest.fixture(scope="module")
def schema(secret_and_instance: tuple[str, Instance]) -> BaseSchema:
    _, instance = secret_and_instance
    checks = {
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]},
        "negative_data_rejection": {"expected-statuses": ["4xx"]},
        "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "422", "503"]},
    }
    config = SchemathesisConfig.from_dict({"checks": checks})
    found = schemathesis.openapi.from_url(instance.url + "/openapi.json", config=config)
    load_all_checks()
    return found


def in_the_past(case: schemathesis.Case) -> schemathesis.Case:
    """A valid request asks for a time that was: no schema can say so."""
    if isinstance(case.query.get("as_of"), int):
        case.query["as_of"] %= 10**12
    return case


def wrong_out_of_sight(query: Mapping[str, Any]) -> bool:
    """What is wrong about an empty list or object, or about one word where several may stand, is not in the URL."""
    words = query.get("exclude", [])
    return any(value in ([], {}, None) for value in query.values()) or not isinstance(words, list | dict)


def fuzz(schema: BaseSchema, secret: str, examples: int, random: bool = False) -> int:
    """Sends `examples` valid and as many invalid requests to each operation; returns how many."""
    headers, sent = {"authorization": f"Bearer {secret}"}, 0
    without_auth: list[Any] = [CHECKS.get_one("ignored_auth")]  # it asks again without the token, and has its own test
    # Of a list the good events are taken, and so are nulls and numbers that can mean one thing only. What an event may
    # be is tested with its decoder.
    lenient: list[Any] = [CHECKS.get_one("negative_data_rejection")]

    def check(operation: APIOperation, mode: GenerationMode) -> None:
        cases = operation.as_strategy(generation_mode=mode)

        @given(case=cases.map(in_the_past) if mode is GenerationMode.POSITIVE else cases)
        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=not random,
        )
        def run(case: schemathesis.Case) -> None:
            nonlocal sent
            assume(mode is GenerationMode.POSITIVE or not wrong_out_of_sight(case.query))
            sent += 1
            excluded = without_auth + (lenient if case.path == "/v1/events" else [])
            case.call_and_validate(headers=headers, excluded_checks=excluded, timeout=10)

        run()

    results = list(schema.get_all_operations())
    operations = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(operations) == len(results) == OPERATIONS
    for operation in operations:
        check(operation, GenerationMode.POSITIVE)
        if operation.query or operation.path_parameters or operation.body:
            check(operation, GenerationMode.NEGATIVE)
    return sent


def test_generated_requests_are_answered_as_described(
    schema: BaseSchema, secret_and_instance: tuple[str, Instance]
) -> None:
    assert fuzz(schema, secret_and_instance[0], EXAMPLES) > 4 * EXAMPLES


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.timeout(3000)
def test_ten_thousand_generated_requests_are_answered_as_described(
    schema: BaseSchema, secret_and_instance: tuple[str, Instance]
) -> None:
    sent = 0
    while sent < 10_000:
        sent += fuzz(schema, secret_and_instance[0], MANY_EXAMPLES, random=True)
