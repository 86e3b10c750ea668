"""All features, base and extra: stream form = batch form = an independent computation, with ties, late events, copies
and corrections."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from centinela.events import TransactionReceived
from centinela.features.assemble import Columns, assemble, attribute_matrix
from centinela.features.backfill import build_features
from centinela.features.currency import BASE_ONLY, Rates
from centinela.features.keys import hash_ids
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.features.spec import BASE_TERMINAL, BASE_USER, USER_AGGREGATIONS, Feature
from centinela.features.state.id_table import SeenIds
from centinela.features.state.terminals import TerminalState
from centinela.features.state.users import UserState
from centinela.times import DAY_MS, HOUR_MS, to_ms_array
from tests.support.independent_features import independent_features

START = datetime(2018, 4, 1, tzinfo=UTC)
WINDOWS = ((8 * HOUR_MS, 0), (30 * DAY_MS, 0), (23 * DAY_MS, 2 * DAY_MS))
EXTRA = (
    *(
        Feature(f"user_{aggregation}_{column}_{n}", "user", aggregation, window, column, delay)
        for aggregation in USER_AGGREGATIONS
        for column in ("amount", "v1")
        for n, (window, delay) in enumerate(WINDOWS)
        if column == "amount" or aggregation != "seconds_since_last"
    ),
    *(
        Feature(f"user_terminals_{n}", "user", "distinct", window, "terminal_id", delay)
        for n, (window, delay) in enumerate(WINDOWS)
    ),
    Feature("terminal_count_3d_9d", "terminal", "count", 3 * DAY_MS, delay_ms=9 * DAY_MS),
    Feature("terminal_risk_29d_8d", "terminal", "fraud_share", 29 * DAY_MS, delay_ms=8 * DAY_MS),
)
LAYOUT = FeatureLayout(("v1", "v2"), EXTRA)
Traffic = tuple[list[TransactionReceived], pd.DataFrame]


@st.composite
def traffic(draw: st.DrawFn) -> Traffic:
    """A log of few users and terminals, with ties, events up to two days late, refunds and copies; and reports with
    corrections."""
    size = draw(st.integers(1, 40))
    step_h = draw(st.sampled_from([1, 8, 30]))
    log: list[TransactionReceived] = []
    hour = 0
    for number in range(size):
        if log and draw(st.integers(0, 7)) == 0:
            log.append(draw(st.sampled_from(log)))
            continue
        hour += step_h * draw(st.sampled_from([0, 0, 1, 1, 3, 9]))
        late_h = draw(st.sampled_from([0, 0, 0, 1, 24, 47]))
        log.append(
            TransactionReceived(
                transaction_id=f"t{number:03d}",
                occurred_at=START + timedelta(hours=hour - late_h),
                amount=draw(st.integers(0, 400)) / 100,
                user_id=draw(st.sampled_from(["u1", "u1", "u2", None])),
                terminal_id=draw(st.sampled_from(["m1", "m2", "m3", None])),
                kind=draw(st.sampled_from(["purchase"] * 5 + ["refund", "reversal"])),
                attributes=draw(st.sampled_from([{}, {"v1": None}, {"v1": 0.5}, {"v1": 1.25, "v2": 1.0}, {"v1": 7.0}])),
            )
        )
    reports = [
        (
            t.transaction_id,
            draw(st.booleans()),
            t.occurred_at,
            t.occurred_at + timedelta(hours=draw(st.integers(0, 500))),
        )
        for t in log
        for _ in range(draw(st.sampled_from([0, 0, 1, 3])))
    ]
    return log, pd.DataFrame(reports, columns=["transaction_id", "is_fraud", "occurred_at", "reported_at"])


def table_of(log: list[TransactionReceived]) -> pd.DataFrame:
    """The log without its copies."""
    first = {t.transaction_id: t for t in reversed(log)}
    rows = [t for n, t in enumerate(log) if t is first[t.transaction_id] and t not in log[:n]]
    return pd.DataFrame(
        {
            "transaction_id": [t.transaction_id for t in rows],
            "user_id": pd.array([t.user_id for t in rows], dtype=object),
            "terminal_id": pd.array([t.terminal_id for t in rows], dtype=object),
            "occurred_at": pd.to_datetime([t.occurred_at for t in rows], utc=True),
            "amount": [t.amount for t in rows],
            "kind": [t.kind for t in rows],
            "v1": pd.array([t.attributes.get("v1") for t in rows], dtype=float),
            "v2": pd.array([t.attributes.get("v2") for t in rows], dtype=float),
        }
    )


def micro_batches(log: list[TransactionReceived], cuts: list[int]) -> Iterator[list[TransactionReceived]]:
    """*log* cut at *cuts*, and where the stream's gate would hold: at a transaction over 5 days ahead of those before
    its batch."""
    batch: list[TransactionReceived] = []
    reached = log[0].occurred_at
    for number, one in enumerate(log):
        if batch and (number in cuts or one.occurred_at > reached + timedelta(days=5)):
            reached = max([reached, one.occurred_at, *(t.occurred_at for t in batch)])
            yield batch
            batch = []
        batch.append(one)
    yield batch


def streamed(
    log: list[TransactionReceived],
    labels: pd.DataFrame,
    cuts: list[int],
    layout: FeatureLayout = LAYOUT,
    rates: Rates = BASE_ONLY,
) -> np.ndarray:
    """As the predictor's stream goes about it: copies left out, users applied, terminals read, then told."""
    seen, users, terminals = SeenIds(), UserState(layout), TerminalState(layout)
    terminals.apply_labels(
        hash_ids(labels["transaction_id"].tolist()),
        labels["is_fraud"].to_numpy(bool),
        to_ms_array(labels["occurred_at"]),
        to_ms_array(labels["reported_at"]),
    )
    parts = []
    for number, batch in enumerate(micro_batches(log, cuts)):
        columns = Columns.of(batch, layout, rates)
        rows = np.flatnonzero(seen.admit(columns.ids))
        columns, batch = columns.take(rows), [batch[n] for n in rows.tolist()]
        user = users.apply(columns.users, columns.times, columns.minor, columns.stored)
        parts.append(
            assemble(columns, user, terminals.read(columns.terminals, columns.times), attribute_matrix(batch, layout))
        )
        terminals.apply_activity(columns.terminals, columns.times, columns.ids)
        if number % 3 == 1:
            users, terminals = (
                UserState.from_arrays(users.arrays(), layout),
                TerminalState.from_arrays(terminals.arrays(), layout),
            )
    return np.concatenate(parts)


@given(traffic(), st.lists(st.integers(1, 39), max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_stream_gives_the_bytes_of_the_batch_form_however_its_log_is_cut(one: Traffic, cuts: list[int]) -> None:
    log, labels = one

    stream = streamed(log, labels, cuts)

    assert stream.tobytes() == build_features(table_of(log), labels, LAYOUT, order="log").to_numpy().tobytes()


@given(traffic(), st.sampled_from(["log", "time"]))
@settings(max_examples=15, deadline=None)
def test_every_feature_equals_an_independent_computation(one: Traffic, order: Literal["log", "time"]) -> None:
    log, labels = one
    table = table_of(log)

    expected = independent_features(table, labels, EXTRA, order=order)
    features = build_features(table, labels, LAYOUT, order=order)

    assert set(expected.columns) == set(LAYOUT.names) - {"amount", "v1", "v2"}
    pd.testing.assert_frame_equal(features[expected.columns], expected, rtol=1e-9, atol=1e-12)


def test_what_a_newer_transaction_made_the_state_forget_is_forgotten_in_the_independent_computation_too() -> None:
    hours = (0, 810, 809)
    log = [
        TransactionReceived(transaction_id=f"t{n}", occurred_at=START + timedelta(hours=hour), amount=1.0, user_id="u1")
        for n, hour in enumerate(hours)
    ]
    labels = pd.DataFrame(columns=["transaction_id", "is_fraud", "occurred_at", "reported_at"])
    labels = labels.astype({"occurred_at": "datetime64[ns, UTC]", "reported_at": "datetime64[ns, UTC]"})

    expected = independent_features(table_of(log), labels, order="log")["user_seconds_since_last"]
    features = build_features(table_of(log), labels, LAYOUT, order="log")["user_seconds_since_last"]

    assert expected.isna().tolist() == [True, False, True]
    pd.testing.assert_series_equal(features, expected)


@given(traffic())
@settings(max_examples=30, deadline=None)
def test_a_log_in_the_order_of_time_and_id_is_the_same_in_both_orders(one: Traffic) -> None:
    log, labels = one
    table = table_of(log)
    ordered = table.sort_values(["occurred_at", "transaction_id"])

    pd.testing.assert_frame_equal(
        build_features(ordered, labels, LAYOUT, order="log"), build_features(table, labels, LAYOUT).loc[ordered.index]
    )


@given(traffic())
@settings(max_examples=50, deadline=None)
def test_reading_gives_what_applying_next_would_give(one: Traffic) -> None:
    users = UserState(LAYOUT)
    for transaction in one[0]:
        columns = Columns.of([transaction], LAYOUT)
        own = columns.users, columns.times, columns.minor, columns.stored
        np.testing.assert_array_equal(users.read(*own), users.apply(*own))


@given(traffic(), st.lists(st.integers(1, 39), max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_general_kernel_gives_the_bytes_of_the_base_features_kernels(one: Traffic, cuts: list[int]) -> None:
    log, labels = one
    again = tuple(
        Feature(f"again_{f.name}", f.entity, f.aggregation, f.window_ms, f.column, f.delay_ms)
        for f in BASE_USER + BASE_TERMINAL
        if f.window_ms
    )
    layout = FeatureLayout((), again)
    frame = pd.DataFrame(streamed(log, labels, cuts, layout), columns=list(layout.names))

    for feature in again:
        np.testing.assert_array_equal(frame[feature.name], frame[feature.name.removeprefix("again_")])


@given(traffic(), st.lists(st.integers(1, 39), max_size=6))
@settings(max_examples=30, deadline=None)
def test_extra_features_leave_the_base_features_as_they_are(one: Traffic, cuts: list[int]) -> None:
    log, labels = one
    base = len(BASE_LAYOUT.names)

    assert streamed(log, labels, cuts)[:, :base].tobytes() == streamed(log, labels, cuts, BASE_LAYOUT).tobytes()


def test_windows_of_many_entries_are_scanned_in_parts_and_stay_exact() -> None:
    random = np.random.default_rng(1)
    n = 1_700
    extra = tuple(
        feature for feature in EXTRA if feature.name in ("user_std_v1_1", "user_mean_amount_1", "user_terminals_1")
    )
    table = pd.DataFrame(
        {
            "transaction_id": [f"t{k}" for k in range(n)],
            "user_id": "u1",
            "terminal_id": [f"m{k}" for k in random.integers(0, 99, n)],
            "occurred_at": START + pd.to_timedelta(np.sort(random.integers(0, 25 * 86_400, n)), unit="s"),
            "amount": random.integers(1, 9_000, n) / 100,
            "v1": np.where(random.random(n) < 0.1, np.nan, random.integers(1, 50, n) / 8),
            "v2": 0.0,
        }
    )
    labels = pd.DataFrame(columns=["transaction_id", "is_fraud", "occurred_at", "reported_at"])

    features = build_features(table, labels, FeatureLayout(("v1", "v2"), extra), order="log")

    expected = independent_features(table, labels, extra, order="log")
    pd.testing.assert_frame_equal(features[expected.columns], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("aggregation", USER_AGGREGATIONS)
def test_a_window_that_holds_nothing(aggregation: str) -> None:
    nothing = 0.0 if aggregation in ("count", "distinct") else np.nan
    layout = FeatureLayout(("v1",), (Feature("x", "user", aggregation, HOUR_MS, delay_ms=HOUR_MS),))
    columns = Columns.of([TransactionReceived(transaction_id="a", occurred_at=START, amount=1, user_id="u")], layout)

    features = UserState(layout).apply(columns.users, columns.times, columns.minor, columns.stored)

    np.testing.assert_array_equal(features[0, -1], nothing)


def test_state_without_the_columns_that_its_layout_stores_is_refused() -> None:
    columns = Columns.of([TransactionReceived(transaction_id="a", occurred_at=START, amount=1, user_id="u")])

    with pytest.raises(ValueError, match="0 columns given in addition to time and amount; the layout stores 2"):
        UserState(LAYOUT).apply(columns.users, columns.times, columns.minor, columns.stored)
