"""The Python programs of ``docs/producers.md``, run as they stand, put every user where the Java client does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from centinela_local.paths import CHECKOUT
from tests.support.kafka_kit import RealKit, kit_of, read_to_end, reader

JAVA = json.loads((Path(__file__).parent / "data" / "java-partitions.json").read_text())
KEYS: list[str] = JAVA["keys"]
"""And, by the number of partitions, where the Java client put each: as it acknowledged them, in the same order."""


@pytest.fixture(scope="module")
def kit(broker: str) -> Iterator[RealKit]:
    kit = kit_of("kafka-python", broker)
    yield kit
    kit.close()


def program(client: str) -> str:
    """The program for *client* in the document."""
    document = (CHECKOUT / "docs" / "producers.md").read_text()
    found = re.search(rf"^## {re.escape(client)}\n+```python\n(.*?)```", document, re.DOTALL | re.MULTILINE)
    assert found, f"no program for {client}"
    return found[1]


@pytest.mark.parametrize("client", ["kafka-python", "confluent-kafka", "aiokafka"])
def test_a_producer_set_as_documented_puts_users_where_the_java_client_does(
    kit: RealKit, broker: str, client: str
) -> None:
    transactions = [{"transaction_id": f"t-{n}", "user_id": key} for n, key in enumerate(KEYS)]
    for count, expected in JAVA["partitions"].items():
        topic = kit.topic(int(count))
        code = program(client).replace("localhost:9092", broker).replace('"transactions"', f'"{topic}"')
        exec(code, {"transactions": transactions})  # noqa: S102 - our own document

        consumer = reader(kit, topic)
        records = read_to_end(consumer, topic)
        kit.after_test()
        assert {r.key.decode(): r.partition for r in records if r.key} == dict(zip(KEYS, expected, strict=True))
        assert sorted(json.loads(r.value or b"")["user_id"] for r in records) == sorted(KEYS)
