"""Hypothesis strategies for records as they may come: any time, id and number in any field of a valid event."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.support.mutations import ODD_VALUES


class Sent(NamedTuple):
    """What a producer writes; *timestamp_ms* None: stamped by the client, in milliseconds."""

    value: bytes | None
    timestamp_ms: int | None


offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(
    lambda minutes: f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
)
times = st.builds(
    lambda at, offset: f"{at.year:04d}{at.isoformat()[4:]}{offset}",
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59)),  # noqa: DTZ001 the offset follows
    st.just("Z") | offsets | st.just(""),
)
ids = st.text(max_size=130) | st.sampled_from(
    ["", "x" * 128, "é" * 128, "x" * 129, "\x00", "\ud800", "😀" * 128, "nan"]
)
numbers = st.floats() | st.integers(-(2**70), 2**70) | st.sampled_from([0, -0.0, 1e9, 1e308, 1e-320, 2**53 + 1])
packed = st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode())
values: st.SearchStrategy[Any] = (
    times | ids | numbers | packed | st.none() | st.booleans() | st.lists(numbers, max_size=2) | st.just({})
)

_NOW_S = 1_700_000_000
timestamps = st.sampled_from(
    [None, None, None, -1, 0, _NOW_S, _NOW_S * 1_000, _NOW_S * 10**6, _NOW_S * 10**9, 2**63 - 1]
) | st.integers(-1, 2**63 - 1)


def changed(example: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    """*example* as JSON with an id of its own, and any values in a few of its fields."""
    one = st.tuples(st.sampled_from(sorted(example)), values)
    time_fields = [name for name in example if name.endswith("_at") or name in ("start", "end", "watermark", "as_of")]
    timed = st.tuples(st.sampled_from(time_fields), times)
    names = [name for name in example if name.endswith("_id") or name == "model_name"]
    named = st.tuples(st.sampled_from(names), ids) if names else one
    own = {"transaction_id", "request_id"} & set(example)
    return st.builds(
        lambda number, changes: json.dumps({**example, **dict.fromkeys(own, f"id-{number}"), **dict(changes)}).encode(),
        st.integers(0, 2**32),
        st.just([]) | st.lists(st.one_of(timed, named, one), min_size=1, max_size=3),
    )


def records(example: Mapping[str, Any]) -> st.SearchStrategy[list[Sent]]:
    """Some records of a topic: *example*, changed; any bytes; no value."""
    value = st.one_of(
        changed(example),
        changed(example),
        changed(example),
        st.sampled_from(ODD_VALUES),
        st.binary(max_size=30),
        st.none(),
    )
    return st.lists(st.builds(Sent, value, timestamps), min_size=1, max_size=12)
