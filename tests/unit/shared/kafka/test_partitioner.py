"""Our partitioner against the Java client's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from centinela.kafka.partitioner import partition_of

JAVA = json.loads((Path(__file__).parents[3] / "integration" / "data" / "java-partitions.json").read_text())


@pytest.mark.parametrize(("partitions", "expected"), JAVA["partitions"].items())
def test_a_key_is_where_the_java_client_put_it(partitions: str, expected: list[int]) -> None:
    assert [partition_of(key.encode(), int(partitions)) for key in JAVA["keys"]] == expected
