"""One cell as people and programs write it, and what it means: times, amounts, ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from centinela.datasets.mapping import MappingError
from centinela.datasets.options import FileOptions
from centinela.datasets.rows import LabelRule
from centinela.datasets.source import open_files
from tests.field.files.support import NOW, PLAIN, read

EIGHT = "2026-01-05T08:00:00Z"


def cell(path: Path, column: str, value: str, mapping: str = PLAIN, more: str = "") -> tuple[str | None, str]:
    """What *value* became, or None and why its row was rejected; *more* rows may stand before it."""
    quoted = value.replace('"', '""')
    row = {"at": "2026-01-05 08:00", "amount": "1.5", "user": "u"} | {column: f'"{quoted}"'}
    (path / "t.csv").write_text("at,amount,user\n" + more + ",".join(row.values()) + "\n")
    found = read(path / "t.csv", mapping)
    if found.rejects:
        return None, found.rejects[-1][1]
    _, time, user, amount = found.rows[-1].rsplit(" ", 3)
    return {"at": time, "amount": amount, "user": user}[column], ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-05T08:00:00Z", EIGHT),
        ("2026-01-05 10:00:00+02", EIGHT),  # Postgres
        ("2026-01-05 10:00+02", EIGHT),
        ("2026-01-05 13:30:00+05:30", EIGHT),
        ("2026-01-05 03:00:00-0500", EIGHT),
        ("2026-01-05 10:00:00 +02", EIGHT),
        ("2026-01-05 10:00:00 +0200", EIGHT),  # Ruby
        ("2026-01-05 10:00:00.000000 +02:00", EIGHT),  # Oracle, Snowflake
        ("2026-01-05 08:00:00 UTC", EIGHT),  # BigQuery
        ("2026-01-05 08:00:00 GMT", EIGHT),
        ("2026-01-05t08:00:00z", EIGHT),
        ("2026-01-05T08:00", EIGHT),
        ("2026-01-05T09:00:00+01:00[Europe/Madrid]", EIGHT),  # Java
        ("20260105T080000Z", EIGHT),
        ("20260105080000", EIGHT),
        ("2026/01/05 08:00:00", EIGHT),
        ("2026-1-5 8:00", EIGHT),
        ("05.01.2026 08:00", EIGHT),  # German Excel
        ("5.1.2026 8:00:00", EIGHT),
        ("05.01.2026, 08:00", EIGHT),
        ("2026-01-05", "2026-01-05T00:00:00Z"),
        ("20260105", "2026-01-05T00:00:00Z"),
        ("05.01.2026", "2026-01-05T00:00:00Z"),
        ("2026-01-05 08:00:00,250", "2026-01-05T08:00:00.250000Z"),  # Python's logging
        ("2026-01-05T08:00:00.123456789Z", "2026-01-05T08:00:00.123000Z"),
        ("2026-01-05T08:00:00.1234567890123Z", "2026-01-05T08:00:00.123000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+23:59", "before 1970"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("9999-12-31T23:59:59-23:59", "more than a day ahead"),
        ("2300-01-01", "more than a day ahead"),
        ("2026-02-30 08:00", "not a time"),
        ("2026-01-05 25:00", "not a time"),
        ("2026-01-05T08:00:00+25:00", "not a time"),
        ("infinity", "not a time"),
        ("-infinity", "not a time"),
        ("yesterday", "not a time"),
        ("", "missing"),
        ("\\N", "missing"),
        ("05/01/2026 08:00", "set time.format"),
        ("1767600000", "set time.unit"),
        ("46027,3333", "set time.unit"),
    ],
)
def test_a_time(text: str, expected: str, tmp_path: Path) -> None:
    value, detail = cell(tmp_path, "at", text, more="2026-01-05 07:00,1,u\n")
    assert value == expected or expected.lower() in detail.lower()
    assert (value is None) == (expected[0].islower() or " " in expected)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("{format: '%d/%m/%Y %H:%M'}", "05/01/2026 08:00", EIGHT),
        ("{format: '%m/%d/%Y %I:%M:%S %p'}", "1/5/2026 8:00:00 AM", EIGHT),
        ("{format: '%d-%b-%Y %H:%M', zone: Europe/Madrid}", "05-Jan-2026 09:00", EIGHT),
        ("{format: '%a, %d %b %Y %H:%M:%S %z'}", "Mon, 05 Jan 2026 10:00:00 +0200", EIGHT),  # RFC 2822
        ("{format: '%d/%m/%Y %H:%M'}", "13/13/2026 08:00", "not a time"),
        ("{zone: Europe/Madrid}", "2026-01-05 09:00", EIGHT),
        ("{zone: Europe/Madrid}", "2026-01-05 10:00+02", EIGHT),
        ("{unit: s}", "1767600000", EIGHT),
        ("{unit: s}", "1767600000.25", "2026-01-05T08:00:00.250000Z"),
        ("{unit: ms}", "1767600000000", EIGHT),
        ("{unit: us}", "1767600000000000", EIGHT),  # Debezium
        ("{unit: ns}", "1767600000000000000", EIGHT),
        ("{unit: h, base: 2026-01-01T00:00:00Z}", "104", EIGHT),  # PaySim
        ("{unit: m, base: 2026-01-01T00:00:00Z}", "6240", EIGHT),
        ("{unit: d, base: 2026-01-05T08:00:00Z}", "0", EIGHT),  # BankSim
        ("{unit: d, base: 1899-12-30T00:00:00Z}", "46027.3333333333", "2026-01-05T07:59:59.999000Z"),  # Excel's serial
        ("{unit: d}", "1e99", "out of range"),
        ("{unit: h}", "", "out of range"),
        ("{unit: h}", "noon", "not a number"),
    ],
)
def test_a_time_by_a_rule(rule: str, text: str, expected: str, tmp_path: Path) -> None:
    value, detail = cell(tmp_path, "at", text, f"{PLAIN}time: {rule}\n")
    assert value == expected or expected in detail
    assert (value is None) == (expected[0].islower())


@pytest.mark.parametrize(
    ("text", "before", "expected"),
    [
        ("12.50", "", "12.5"),
        ("12,50", "", "12.5"),
        ("1,234.50", "", "1234.5"),
        ("1.234,50", "", "1234.5"),
        ("1,234,567", "", "1.23457e+06"),
        ("1.234.567", "", "1.23457e+06"),
        ("12,34,567.50", "", "1.23457e+06"),  # India
        ("1 234,50", "", "1234.5"),
        ("1\u202f234,50", "", "1234.5"),  # French Excel
        ("1'234.50", "", "1234.5"),  # Switzerland
        ("1’234.50", "", "1234.5"),
        ("+12.5", "", "12.5"),
        ("1.25e1", "", "12.5"),
        (".5", "", "0.5"),
        ("1.234", "", "1.234"),
        ("1,234", "12.5", "1234"),
        ("1.234", "12,5", "1234"),
        ("1,234", "", "1,234 may be 1234 or 1.234: pass --decimal"),
        ("12,50", "12.5", "pass --decimal ,"),
        ("12.50", "12,5", "pass --decimal ,"),
        ("1,23.5", "", "not a number"),
        ("1_000", "", "not a number"),
        ("0x1F", "", "not a number"),
        ("ten", "", "not a number"),
        ("v1", "", "not a number"),
        ("-5", "", "negative"),
        ("inf", "", "not finite"),
        ("NaN", "", "missing"),
        ("", "", "missing"),
    ],
)
def test_an_amount(text: str, before: str, expected: str, tmp_path: Path) -> None:
    more = f'2026-01-05 07:00,"{before}",u\n' if before else ""
    value, detail = cell(tmp_path, "amount", text, more=more)
    assert value == expected or expected in detail
    assert (value is None) == (" " in expected or expected.isalpha())


@pytest.mark.parametrize(
    ("text", "currency", "expected"),
    [
        ("€ 12,50", "EUR", "12.5"),
        ("12,50 €", "EUR", "12.5"),
        ("EUR 12.50", "EUR", "12.5"),
        ("$1,234.50", "USD", "1234.5"),
        ("-$12.50", "USD", "negative"),
        ("R$ 1.234,50", "BRL", "1234.5"),
        ("1 234,50 kr", "SEK", "1234.5"),
        ("$12.50", "EUR", "in $, but the mapping's currency is EUR"),
        ("JPY 100", "EUR", "in JPY, but the mapping's currency is EUR"),
        ("12.50", "JPY", "12.5"),
    ],
)
def test_an_amount_with_its_currency(text: str, currency: str, expected: str, tmp_path: Path) -> None:
    value, detail = cell(tmp_path, "amount", text, f"{PLAIN}currency: {currency}\n")
    assert value == expected or expected in detail
    assert (value is None) == expected[0].isalpha()


def test_amounts_without_a_currency_are_in_the_base_currency(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,amount,user\n2026-01-05,$5,u\n")
    for own, expected in ((None, "USD"), ("CAD", "CAD")):
        (tmp_path / "m.yaml").write_text(PLAIN + (f"currency: {own}\n" if own else ""))
        files = open_files(tmp_path / "t.csv", str(tmp_path / "m.yaml"), base_currency="USD")
        [part] = files.parts(LabelRule(), NOW)
        assert part.transactions.currency.tolist() == [expected]


def test_a_column_of_currencies(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "at,amount,user,iso\n2026-01-05,$5,u,usd\n2026-01-05,100,u,\n2026-01-05,7,u,dollars\n"
    )
    mapping = f"{PLAIN}currency: JPY\n".replace("}\nid", ", iso: currency}\nid")
    found = read(tmp_path / "t.csv", mapping)
    assert found.currencies == ["USD", "JPY"]
    assert found.rejects == [(3, "currency: not a code such as EUR")]


def test_a_point_among_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at;amount;user\n2026-01-05;12.50;u\n2026-01-05;1.250;u\n")
    found = read(tmp_path / "t.csv", PLAIN, FileOptions(decimal=","))
    assert found.rejects == [(1, "amount: not a number with a decimal comma")]
    assert found.rows == ["f-000000002 2026-01-05T00:00:00Z u 1250"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1234", "1234"),
        ("1234.0", "1234"),
        ("1234,0", "1234"),
        ("007", "007"),
        ("1234.50", "1234.50"),
        ("v1.0", "v1.0"),
        (" u ", "u"),
        ("", "None"),
        ("nan", "None"),
        ("NULL", "None"),
        ("\\N", "None"),
        ("4.53E+15", "digits are lost: export the column as text"),
        ("4,53E+15", "digits are lost: export the column as text"),
        ("1e+16", "digits are lost: export the column as text"),
        ("5e3a", "5e3a"),
        ("u" * 129, "longer than 128 characters"),
    ],
)
def test_an_id(text: str, expected: str, tmp_path: Path) -> None:
    value, detail = cell(tmp_path, "user", text)
    assert value == expected or expected in detail
    assert (value is None) == (" " in expected)


@pytest.mark.parametrize("text", ["1234.0", "1e+16", "1,0"])
def test_an_id_that_is_kept_as_it_is_written(text: str, tmp_path: Path) -> None:
    assert cell(tmp_path, "user", text, f"{PLAIN}exact_ids: true\n")[0] == text


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("columns: {A: amount, B: amount, at: occurred_at}\nid_prefix: f-\n", "A and B are both amount"),
        (PLAIN + "attributes: {A: v1, B: v1}\n", "A and B are both v1"),
        (PLAIN + "attributes: {A: amount}\n", "A: amount: that is a field's name"),
        (PLAIN + "attributes: {A: v1, A: v2}\n", "'A' occurs twice, with v1 and v2"),
        ("columns: {at: occurred_at, at: amount}\nid_prefix: f-\n", "'at' occurs twice, with occurred_at and amount"),
        (PLAIN + "time: {unit: fortnight}\n", "unit"),
        (PLAIN + "time: {unit: s, format: '%d/%m/%Y'}\n", "time.unit s is for numbers and time.format %d/%m/%Y"),
        (PLAIN + "time: {format: dd.mm.yyyy}\n", "time.format 'dd.mm.yyyy' is not a format such as %d/%m/%Y"),
    ],
)
def test_a_mapping_that_contradicts_itself_is_refused_with_both_names(
    mapping: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(MappingError) as refused:
        cell(tmp_path, "user", "u", mapping)
    assert message in str(refused.value)


def test_a_column_may_be_a_field_and_an_attribute(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("at,amount,user\n5,2.5,u\n")
    mapping = f"{PLAIN}attributes: {{at: time, amount: raw_amount}}\ntime: {{unit: s}}\n"
    found = read(tmp_path / "t.csv", mapping)
    assert found.rows == ["f-000000001 1970-01-01T00:00:05Z u 2.5"]
    assert found.attributes == [[5.0, 2.5]]
