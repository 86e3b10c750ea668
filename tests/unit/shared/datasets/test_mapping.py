"""A mapping is detected by its columns, and an invalid one says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from centinela.datasets.mapping import MappingError, detect, load_mapping, shipped

ULB = ["Time", *(f"V{n}" for n in range(1, 29)), "Amount", "Class"]
HANDBOOK = ["TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD", "TX_FRAUD_SCENARIO"]
GOOD = "columns: {a: occurred_at, b: amount}\nid_prefix: x-\n"


@pytest.mark.parametrize(("columns", "name"), [(ULB, "ulb"), (HANDBOOK, "handbook"), ([*ULB, "note"], "ulb")])
def test_the_shipped_layouts_are_found_by_their_columns(columns: list[str], name: str) -> None:
    found, mapping = detect(columns, "file")
    assert found == name
    assert mapping == shipped(name)


def test_a_layout_that_is_not_known_says_what_the_closest_has_more() -> None:
    with pytest.raises(
        MappingError,
        match=r"f\.csv has none .*\(ulb, handbook.*Its columns: Time.*closest, ulb, has V28 too\. .*--mapping",
    ):
        detect([name for name in ULB if name != "V28"], "f.csv")
    with pytest.raises(MappingError) as refused:
        detect(["a", "b"], "f.csv")
    assert "closest" not in str(refused.value)


def test_a_file_without_a_mapped_column_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD)
    with pytest.raises(MappingError, match=r"f\.csv has no column b, .*its columns: a, c"):
        load_mapping(str(path)).require(["a", "c"], "f.csv")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("columns: {a: occurred_at}\nid_prefix: x-", "no entry for 'amount'"),
        ("columns: {b: amount}\nid_prefix: x-", "no entry for 'occurred_at'"),
        ("columns: {a: occurred_at, b: amount}", "id_prefix is needed"),
        ("columns: {a: occurred_at, b: amount, c: amount}\nid_prefix: x-", "a field twice"),
        ("columns: {a: occurred_at, b: amuont}\nid_prefix: x-", "amuont"),
        ("colums: {a: occurred_at}", "colums|columns"),
        (GOOD + "time: {unit: weeks}", "unit"),
        (GOOD + "time: {zone: Europe/Nowhere}", "Europe/Nowhere"),
        (GOOD + "time: {unit: s, base: 2013-09-01T00:00:00}", r"time\.base needs a zone"),
        ("columns: [", "not valid YAML"),
        ("just text", "mapping"),
    ],
)
def test_an_invalid_mapping_says_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(MappingError, match=complaint):
        load_mapping(str(path))


def test_a_mapping_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(MappingError, match=r"neither shipped \(ulb, handbook, .* nor a file"):
        load_mapping("elsewhere")
