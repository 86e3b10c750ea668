"""How the stream groups the records of one batch."""

from __future__ import annotations

from centinela.kafka.port import Record
from centinela_predictor.state.admission import by_partition


def test_records_that_came_in_turns_are_grouped_by_partition_in_their_order() -> None:
    records = [
        Record("transactions", partition, offset, None, b"")
        for partition, offset in ((1, 7), (0, 3), (0, 4), (1, 8), (2, 0), (0, 5))
    ]

    grouped = {number: [record.offset for record in part] for number, part in by_partition(records).items()}

    assert grouped == {1: [7, 8], 0: [3, 4, 5], 2: [0]}
