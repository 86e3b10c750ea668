"""Amounts in one base currency, by dated rates; and the file that the rates come from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.events import TransactionReceived
from centinela.features.assemble import Columns
from centinela.features.currency import BASE_ONLY, Rates, RateSeries
from centinela.features.rates_file import RatesError, load_rates, rates_of
from centinela.settings import Settings
from centinela.times import DAY_MS, to_ms, to_ms_array
from tests.support.independent_features import independent_features
from tests.unit.shared.features.test_features_independently import EXTRA, LAYOUT, Traffic, streamed, table_of, traffic

START = datetime(2018, 4, 1, tzinfo=UTC)
ONE = TransactionReceived(transaction_id="t", occurred_at=START, amount=8.0)
FILE = """date,currency,rate
2018-04-01,JPY,0.0075
2018-04-11,JPY,0.5
2018-04-01,USD,0.8125
"""


@pytest.fixture
def rates(tmp_path: Path) -> Rates:
    path = tmp_path / "rates.csv"
    path.write_text(FILE)
    return load_rates(path, "EUR")


def test_a_rate_holds_from_its_day_until_the_next_one(rates: Rates) -> None:
    times = [
        START,
        START + timedelta(days=10, milliseconds=-1),
        START + timedelta(days=10),
        START + timedelta(days=4_000),
    ]
    converted = rates.to_base(np.full(4, 100_000.0), ["JPY"] * 4, to_ms_array(times))
    assert converted.tolist() == [750.0, 750.0, 50_000.0, 50_000.0]


def test_amounts_are_rounded_to_hundredths_and_those_of_the_base_currency_are_not_touched(rates: Rates) -> None:
    amounts, times = np.array([100_000.0, 100_000.0, 0.333, 1.239]), np.full(4, to_ms(START))
    assert rates.to_base(amounts, ["EUR", "JPY", "EUR", "USD"], times).tolist() == [100_000.0, 750.0, 0.333, 1.01]
    assert BASE_ONLY.to_base(amounts, ["EUR"] * 4, times) is amounts


@pytest.mark.parametrize(
    ("currency", "at", "problem"),
    [
        ("EUR", START - timedelta(days=9_000), None),
        ("JPY", START, None),
        ("JPY", START - timedelta(milliseconds=1), "no rate from JPY to EUR before 2018-04-01"),
        ("CHF", START, "no rate from CHF to EUR"),
    ],
)
def test_what_has_no_rate_is_not_a_number_and_says_so(
    rates: Rates, currency: str, at: datetime, problem: str | None
) -> None:
    [converted] = rates.to_base(np.array([1.0]), [currency], np.array([to_ms(at)]))
    message = rates.missing(currency, to_ms(at))
    assert np.isnan(converted) == (message is not None) == (problem is not None)
    if message is not None:
        assert message.startswith(f"{problem}: add it to the file of CENTINELA_RATES_FILE")


@given(traffic(), st.lists(st.sampled_from(["EUR", "USD", "JPY"]), min_size=40, max_size=40))
@settings(max_examples=15, deadline=None)
def test_the_windows_of_mixed_currencies_equal_an_independent_computation_on_converted_amounts(
    one: Traffic, currencies: list[str]
) -> None:
    log, labels = one
    of_id = dict(zip(sorted({t.transaction_id for t in log}), currencies, strict=False))
    log = [msgspec.structs.replace(t, currency=of_id[t.transaction_id]) for t in log]
    rates = Rates(
        "EUR",
        {
            "USD": RateSeries(np.array([0]), np.array([0.8125])),
            "JPY": RateSeries(np.array([0, to_ms(START) + 9 * DAY_MS]), np.array([0.0075, 0.5])),
        },
    )

    served = pd.DataFrame(streamed(log, labels, [5, 17], rates=rates), columns=list(LAYOUT.names))

    table = table_of(log)
    first = {t.transaction_id: t for t in reversed(log)}
    changed = START + timedelta(days=9)

    def converted(transaction: TransactionReceived) -> float:
        if transaction.currency == "EUR":
            return transaction.amount
        yen = 0.0075 if transaction.occurred_at < changed else 0.5
        return round(transaction.amount * (0.8125 if transaction.currency == "USD" else yen) * 100) / 100

    table["amount"] = [converted(first[transaction_id]) for transaction_id in table["transaction_id"]]
    expected = independent_features(table, labels, EXTRA, order="log").reset_index(drop=True)
    pd.testing.assert_frame_equal(served[expected.columns], expected, rtol=1e-9, atol=1e-12)
    assert served["amount"].tolist() == table["amount"].tolist()


@given(traffic())
@settings(max_examples=15, deadline=None)
def test_a_table_of_rates_changes_no_byte_of_transactions_in_the_base_currency(one: Traffic) -> None:
    log, labels = one
    rates = Rates("EUR", {"USD": RateSeries(np.array([0]), np.array([2.0]))})
    assert streamed(log, labels, [7], rates=rates).tobytes() == streamed(log, labels, [7]).tobytes()


def test_another_currency_under_one_id_is_another_payload_whatever_the_rate(rates: Rates) -> None:
    [usd], [eur] = (
        Columns.of([transaction], LAYOUT, rates).payloads
        for transaction in (msgspec.structs.replace(ONE, currency="USD"), ONE)
    )
    assert usd != eur


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected the header date,currency,rate"),
        ("date;currency;rate\n", "line 1: expected the header date,currency,rate"),
        ("date,currency,rate\n2018-04-01,JPY\n", "line 2: expected 3 values (date, currency, rate), got 2"),
        ("date,currency,rate\n\n01/04/2018,JPY,1\n", "line 3: date '01/04/2018' is not a date such as 2026-01-31"),
        ("date,currency,rate\n2018-04-01,yen,1\n", "line 2: currency 'yen' is not a code of three capitals"),
        ("date,currency,rate\n2018-04-01,EUR,1\n", "line 2: EUR is the base currency"),
        ('date,currency,rate\n2018-04-01,JPY,"0,0075"\n', "line 2: rate '0,0075': expected what 1 JPY is worth in EUR"),
        ("date,currency,rate\n2018-04-01,JPY,0\n", "line 2: rate '0': expected what 1 JPY is worth in EUR"),
        ("date,currency,rate\n2018-04-01,JPY,nan\n", "line 2: rate 'nan'"),
        ("date,currency,rate\n2018-04-01,JPY,inf\n", "line 2: rate 'inf'"),
        ("date,currency,rate\n2018-04-01,JPY,-1\n", "line 2: rate '-1'"),
        ("date,currency,rate\n2018-04-01,JPY,1\n2018-04-01,JPY,2\n", "line 3: a second rate of JPY on 2018-04-01"),
    ],
)
def test_a_line_that_is_not_a_rate_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(RatesError) as refused:
        load_rates(path, "EUR")
    assert str(refused.value).startswith(f"{path}, {problem}")


def test_a_file_that_cannot_be_read_names_the_setting(tmp_path: Path) -> None:
    binary = tmp_path / "rates.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.csv", binary):
        with pytest.raises(RatesError, match="CENTINELA_RATES_FILE"):
            rates_of(Settings(rates_file=path))


def test_the_settings_give_the_base_currency_alone_or_with_the_table(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("\ufeff" + FILE, encoding="utf-8")
    assert rates_of(Settings()) == Rates("EUR")
    assert rates_of(Settings(base_currency="CHF")).missing("EUR", to_ms(START)) is not None
    assert set(rates_of(Settings(rates_file=path)).series) == {"JPY", "USD"}
