"""Rows that do not come in the order of time."""

from __future__ import annotations

from pathlib import Path

from centinela.datasets.ordering import in_time_order
from centinela.datasets.rows import LabelRule
from centinela.datasets.source import open_files
from tests.field.files.support import NOW, PLAIN

NEWEST_FIRST = [f"2026-01-{day:02d} 10:00,{day},u" for day in range(20, 0, -1)]


def written(folder: Path, rows: list[str]) -> Path:
    (folder / "mapping.yaml").write_text(PLAIN + "attributes: {amount: raw}\n")
    (folder / "t.csv").write_text("\n".join(["at,amount,user", *rows]))
    return folder / "t.csv"


def test_late_rows_are_counted(tmp_path: Path) -> None:
    files = open_files(written(tmp_path, [*NEWEST_FIRST, "short"]), str(tmp_path / "mapping.yaml"))
    order = files.order()
    assert (order.rows, order.late) == (21, 19)
    assert files.order(limit=5).late == 4


def test_rows_in_order_are_not_late_and_equal_times_neither(tmp_path: Path) -> None:
    rows = [*reversed(NEWEST_FIRST), NEWEST_FIRST[0]]
    assert open_files(written(tmp_path, rows), str(tmp_path / "mapping.yaml")).order().late == 0


def test_sorted_rows_keep_their_numbers_and_equal_times_their_order(tmp_path: Path) -> None:
    rows = [*NEWEST_FIRST, "2026-01-03 10:00,99,w"]
    files = open_files(written(tmp_path, rows), str(tmp_path / "mapping.yaml"))
    (tmp_path / "work").mkdir()
    parts = (part.transactions for part in files.parts(LabelRule(), NOW))

    [found] = in_time_order(parts, tmp_path / "work")

    assert found.amount.tolist() == [1, 2, 3, 99, *range(4, 21)]
    assert found.attributes[:, 0].tolist() == found.amount.tolist()
    assert found.transaction_id[:4].tolist() == ["f-000000020", "f-000000019", "f-000000018", "f-000000021"]
    assert found.user_id.tolist() == ["u", "u", "u", "w", *["u"] * 17]
    assert set(found.terminal_id) == {None}
    assert set(found.currency) == {"EUR"}
    assert [found.occurred_ms.dtype.name, found.is_fraud.dtype.name, found.reported_ms.dtype.name] == [
        "int64",
        "bool",
        "int64",
    ]
