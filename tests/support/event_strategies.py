"""Hypothesis strategies for events: any values that their fields allow."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from hypothesis import strategies as st

from centinela import events

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
instants = st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 the zone is the strategy's
finite = st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1)


def built(kind: type) -> st.SearchStrategy[events.Event]:
    """Events of *kind* with any values that its fields allow."""
    return st.builds(
        kind, **{field.name: of_type(field.type) for field in msgspec.structs.fields(kind) if field.name != "version"}
    )


def of_type(annotation: object) -> st.SearchStrategy[object]:
    info = msgspec.inspect.type_info(annotation)
    return _of(info)


def _of(info: msgspec.inspect.Type) -> st.SearchStrategy[object]:
    match info:
        case msgspec.inspect.UnionType():
            return st.one_of([_of(part) for part in info.types])
        case msgspec.inspect.StrType():
            if info.pattern:
                return st.from_regex(r"\A[A-Z]{3}\Z")
            return ids if info.max_length else st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
        case msgspec.inspect.FloatType():
            return st.floats(info.ge if info.ge is not None else -1e300, info.le if info.le is not None else 1e300)
        case msgspec.inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.BytesType():
            return st.binary(max_size=64)
        case msgspec.inspect.DateTimeType():
            return instants
        case msgspec.inspect.LiteralType():
            return st.sampled_from(info.values)
        case msgspec.inspect.VarTupleType():
            return st.lists(_of(info.item_type), max_size=3).map(tuple)
        case msgspec.inspect.DictType():
            return st.dictionaries(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=8), _of(info.value_type), max_size=3
            )
        case msgspec.inspect.StructType():
            return built(info.cls)
        case msgspec.inspect.Metadata():
            return _of(info.type)
    raise TypeError(f"no strategy for {info}")
