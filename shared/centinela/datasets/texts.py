"""Columns of any type as text, and texts as ids and flags."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from centinela.datasets.csv_file import MISSING
from centinela.datasets.problems import Mask, Problems
from centinela.events import PURCHASE, Kind

ID_LENGTH = 128
_WHOLE = r"^([+-]?\d+)[.,]0+$"
_SCIENTIFIC = r"^[+-]?\d+([.,]\d+)?[eE]\+\d+$"
_EXACT = {pa.float16(): 2.0**11, pa.float32(): 2.0**24, pa.float64(): 2.0**53}
_TRUE, _FALSE = {"1", "true", "t", "yes", "y"}, {"0", "false", "f", "no", "n"}


def to_text(column: pa.Array, field: str, problems: Problems) -> pa.Array:
    """*column* as text without surrounding spaces, null where it is missing: null, empty, NaN, or a word for it."""
    if pa.types.is_floating(column.type):
        column = compute.if_else(compute.is_nan(column), pa.scalar(None, column.type), column)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        column = _decoded(column, field, problems)
    text = compute.utf8_trim_whitespace(column.cast(pa.string()))
    return compute.if_else(compute.is_in(text, pa.array(MISSING)), pa.scalar(None, pa.string()), text)


def to_ids(
    column: pa.Array | None, field: str, problems: Problems, *, exact: bool, required: bool = False
) -> NDArray[np.object_] | None:
    """Ids as text, None where missing. A whole number is the same id however it was written: 1234, 1234.0.

    Args:
        exact: Keep text as it is, surrounding spaces and ``.0`` too.
    """
    if column is None:
        return None
    if pa.types.is_floating(column.type):
        column = _whole_floats(column, field, problems)
    text = to_text(column, field, problems)
    if exact and pa.types.is_string(column.type):
        text = compute.if_else(compute.is_null(text), text, column)
    elif not exact:
        text = compute.replace_substring_regex(text, _WHOLE, r"\1")
        problems.invalid(
            _true(compute.match_substring_regex(text, _SCIENTIFIC)),
            f"{field}: a number such as 4.53E+15, whose last digits are lost: export the column as text",
        )
    ids = np.array(text.to_pylist(), dtype=object)
    lengths = np.array([0 if i is None else len(i) for i in ids], dtype=np.int64)
    if required:
        problems.invalid(lengths == 0, f"{field}: missing")
    problems.invalid(lengths > ID_LENGTH, f"{field}: longer than {ID_LENGTH} characters")
    return ids


def to_currencies(column: pa.Array | None, count: int, usual: str, problems: Problems) -> NDArray[np.object_]:
    """ISO 4217 codes; *usual* where there is no column or no value."""
    if column is None:
        return np.full(count, usual, dtype=object)
    codes = compute.fill_null(compute.utf8_upper(to_text(column, "currency", problems)), usual)
    problems.invalid(~_true(compute.match_substring_regex(codes, "^[A-Z]{3}$")), "currency: not a code such as EUR")
    return np.array(codes.to_pylist(), dtype=object)


def to_kinds(column: pa.Array | None, count: int, problems: Problems) -> NDArray[np.object_]:
    """What each row is: a purchase where there is no column or no value."""
    if column is None:
        return np.full(count, PURCHASE, dtype=object)
    kinds = compute.fill_null(compute.utf8_lower(to_text(column, "kind", problems)), PURCHASE)
    known = get_args(Kind)
    problems.invalid(~_true(compute.is_in(kinds, pa.array(known))), f"kind: none of {', '.join(known)}")
    return np.array(kinds.to_pylist(), dtype=object)


def to_flags(column: pa.Array | None, count: int, problems: Problems) -> tuple[Mask, Mask]:
    """Whether each row is fraud, and whether that is known."""
    if column is None:
        return np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    text = compute.utf8_lower(compute.replace_substring_regex(to_text(column, "is_fraud", problems), _WHOLE, r"\1"))
    values: list[Any] = text.to_pylist()
    fraud = np.array([value in _TRUE for value in values], dtype=bool)
    genuine = np.array([value in _FALSE for value in values], dtype=bool)
    known = np.array([value is not None for value in values], dtype=bool)
    problems.invalid(known & ~fraud & ~genuine, "is_fraud: neither 0 nor 1")
    return fraud, known


def _whole_floats(column: pa.Array, field: str, problems: Problems) -> pa.Array:
    """Ids that a table had to store as floats, because some are missing, as the whole numbers that they are."""
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    problems.invalid(np.isinf(values), f"{field}: not finite")
    problems.invalid(
        np.abs(values) > _EXACT[column.type],
        f"{field}: a float too large to be exact, so that two ids may be one: store ids as integers or text",
    )
    usable = np.isfinite(values) & ~problems.bad
    return pa.array(
        [(str(int(v)) if v == int(v) else str(v)) if good else None for v, good in zip(values, usable, strict=True)],
        pa.string(),
    )


def _decoded(column: pa.Array, field: str, problems: Problems) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [None if cell is None else cell.decode("utf-8", "replace") for cell in column.to_pylist()]
        problems.invalid(np.array(["\ufffd" in (text or "") for text in texts]), f"{field}: bytes that are not text")
        return pa.array(texts, pa.string())


def _true(mask: pa.Array) -> Mask:
    found: Mask = compute.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return found
