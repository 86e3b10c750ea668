"""The archive's files against what stands in the topics."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import duckdb

from tests.support.faultrun.oracle import Judgement
from tests.support.faultrun.readback import ReadBack


def archived(archive: Path, stream: str) -> list[tuple[int, int, str]]:
    """Partition, offset and transaction id of every row of *stream* in the archive."""
    files = [str(path) for path in sorted((archive / stream).rglob("*.parquet"))]
    if not files:
        return []
    with duckdb.connect() as db:
        return db.execute(
            'SELECT partition, "offset", transaction_id FROM read_parquet(?, union_by_name = true, hive_partitioning ='
            " false)",
            [files],
        ).fetchall()


def judge_archive(archive: Path, found: ReadBack, judgement: Judgement) -> None:
    """Each verdict and label stands in it once, by place and id."""
    for stream, places, ids in (
        ("predictions", found.verdict_places, [v.transaction_id for v in found.verdicts]),
        ("labels", found.label_places, [label.transaction_id for label in found.labels]),
    ):
        expected = Counter(
            (*place, name)
            for place, name in zip(places, ids, strict=True)
            if stream == "predictions" or place not in found.mistimed_labels
        )
        there = Counter(archived(archive, stream))
        judgement.check(
            f"{stream} in the archive, once each",
            sum(expected.values()),
            [*(f"missing {row}" for row in expected - there), *(f"too many {row}" for row in there - expected)],
        )
