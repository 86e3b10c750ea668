"""Which transactions say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from centinela.events import AttachedVerdict, TransactionReceived
from centinela.features.assemble import Columns
from centinela.features.payload import UNKNOWN, contradict

TRANSACTIONS = st.builds(
    TransactionReceived,
    transaction_id=st.just("t"),
    occurred_at=st.integers(0, 3).map(lambda n: datetime(2018, 4, 1, n, tzinfo=UTC)),
    amount=st.sampled_from([0.0, -0.0, 1.0, 1.005]),
    user_id=st.sampled_from([None, "u", "v"]),
    terminal_id=st.sampled_from([None, "u", "v"]),
    currency=st.sampled_from(["EUR", "USD"]),
    attributes=st.dictionaries(st.sampled_from(["v1", "v2"]), st.sampled_from([None, 0.0, 1.0])),
)


def contradictory(one: TransactionReceived, other: TransactionReceived) -> bool:
    payloads = Columns.of([one, other]).payloads
    return bool(contradict(payloads[:1], payloads[1:])[0])


@given(TRANSACTIONS, TRANSACTIONS)
def test_two_contradict_each_other_just_where_a_field_differs(
    one: TransactionReceived, other: TransactionReceived
) -> None:
    assert contradictory(one, other) == (one != other)


@given(TRANSACTIONS, st.randoms())
def test_the_order_of_attributes_says_nothing(one: TransactionReceived, random: Any) -> None:
    names = list(one.attributes)
    random.shuffle(names)
    other = msgspec.structs.replace(one, attributes={name: one.attributes[name] for name in names})

    assert not contradictory(one, other)


@given(TRANSACTIONS, TRANSACTIONS)
def test_a_gateway_s_time_is_its_own_and_the_rest_is_compared(
    one: TransactionReceived, other: TransactionReceived
) -> None:
    answered = msgspec.structs.replace(
        one, verdict=AttachedVerdict(origin="gateway", decision="approve", variant="champion")
    )

    same_time = msgspec.structs.replace(other, occurred_at=one.occurred_at)
    assert contradictory(answered, other) == (one != same_time)


def test_what_is_unknown_contradicts_nothing() -> None:
    known = Columns.of(
        [
            TransactionReceived(transaction_id="t", occurred_at=datetime.now(UTC) - timedelta(n), amount=n)
            for n in range(9)
        ]
    ).payloads

    assert not contradict(np.full(9, UNKNOWN), known).any()
