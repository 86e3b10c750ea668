"""Numbers as people and programs write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from numpy.typing import NDArray

from centinela.datasets.options import Decimal
from centinela.datasets.problems import Problems
from centinela.datasets.table import UnreadableFile
from centinela.datasets.texts import to_text

_SIGNS = {
    "€": "EUR",
    "$": "USD CAD AUD NZD MXN SGD HKD ARS CLP COP",
    "£": "GBP EGP",
    "¥": "JPY CNY",
    "₹": "INR",
    "₩": "KRW",
    "₽": "RUB",
    "₺": "TRY",
    "₴": "UAH",
    "₪": "ILS",
    "₫": "VND",
    "₱": "PHP",
    "₦": "NGN",
    "฿": "THB",
    "R$": "BRL",
    "zł": "PLN",
    "Kč": "CZK",
    "Ft": "HUF",
    "lei": "RON",
    "Fr.": "CHF",
    "kr": "SEK NOK DKK ISK",
    "kr.": "DKK ISK",
}
_SIGN = "(?:[A-Z]{3}|" + "|".join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True)) + ")"
_CURRENCY = re.compile(rf"([+-]?)\s*({_SIGN})?\s*([+-]?[\d.,'’\s]*\d[.,]?)\s*({_SIGN})?")
_SPACES = re.compile(r"(?<=\d)['’\s](?=\d{3}(?!\d))")
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_GROUPED = {
    ".": re.compile(r"[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?"),
    ",": re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?"),
}
_CLEAR = {
    ".": re.compile(
        r"[+-]?(\d{4,}\.\d+|0?\.\d+|\d+\.(\d{1,2}|\d{4,})|\d{1,3}(,\d{2,3})*,\d{3}\.\d*|\d{1,3}(,\d{3}){2,})"
    ),
    ",": re.compile(r"[+-]?(\d{4,},\d+|0?,\d+|\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d*|\d{1,3}(\.\d{3}){2,})"),
}
_UNCLEAR = re.compile(r"[+-]?\d{1,3},\d{3}")


@dataclass(frozen=True)
class NumberFormat:
    """How a column writes numbers: its decimal sign (None: cannot be told from its values), and the currency that a
    sign or code may stand for (None: any)."""

    decimal: Decimal | None = "."
    currency: str | None = None


def find_format(column: pa.Array, said: Decimal | None, currency: str | None = None) -> NumberFormat:
    """The format of a column, by its first values; numbers that are stored as numbers have none.

    Args:
        said: The decimal sign that a person named.
        currency: Of the amounts, where the column holds amounts of one.
    """
    if not _is_text(column):
        return NumberFormat()
    numbers = [_parts(text)[1] for text in column.to_pylist() if text]
    return NumberFormat(said or _decimal(numbers), currency)


def _decimal(numbers: Iterable[str]) -> Decimal | None:
    found = set()
    for number in numbers:
        found |= {sign for sign, pattern in _CLEAR.items() if pattern.fullmatch(number)}
        if not found and _UNCLEAR.fullmatch(number):
            found.add("?")
    if "," in found and "." not in found:
        return ","
    return None if found == {"?"} else "."


def to_numbers(column: pa.Array, field: str, format: NumberFormat, problems: Problems) -> NDArray[np.float64]:
    """Values as float64, NaN where missing; what is not a number is a problem of its row."""
    if not _is_text(column):
        return _floats(column, field)
    text = to_text(column, field, problems)
    if (simple := _simply_written(text, format)) is not None:
        return simple
    values = np.full(len(text), np.nan)
    for row, cell in enumerate(text.to_pylist()):
        if cell is None:
            continue
        try:
            values[row] = _number(cell, format)
        except ValueError as error:
            problems.invalid(np.arange(len(text)) == row, f"{field}: {error}")
    return values


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _floats(column: pa.Array, field: str) -> NDArray[np.float64]:
    try:
        values = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise UnreadableFile(f"the column of {field} holds {column.type}, not numbers") from error
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _simply_written(text: pa.Array, format: NumberFormat) -> NDArray[np.float64] | None:
    """The numbers, if they all have only digits and a decimal sign."""
    if format.decimal == ",":
        if compute.any(compute.match_substring(text, ".")).as_py():
            return None
        text = compute.replace_substring(text, ",", ".")
    try:
        return None if format.decimal is None else _floats(text, "")
    except UnreadableFile:
        return None


def _number(text: str, format: NumberFormat) -> float:
    """Raises ValueError: what is wrong with *text*."""
    if text.lower().lstrip("+-") in ("inf", "infinity"):
        return float(text)
    sign, number = _parts(text)
    if sign and format.currency and format.currency not in _SIGNS.get(sign, sign).split():
        raise ValueError(f"in {sign}, but the mapping's currency is {format.currency}")
    decimal = format.decimal
    if decimal is None and _UNCLEAR.fullmatch(number):
        raise ValueError(f"{number} may be {number.replace(',', '')} or {number.replace(',', '.', 1)}: pass --decimal")
    grouping = "," if decimal != "," else "."
    if _GROUPED[decimal or "."].fullmatch(number):
        number = number.replace(grouping, "")
    if decimal == ",":
        if "." in number:
            raise ValueError("not a number with a decimal comma")
        number = number.replace(",", ".", 1)
    if not _PLAIN.fullmatch(number):
        hint = ": pass --decimal ," if _CLEAR[","].fullmatch(number) and decimal != "," else ""
        raise ValueError(f"not a number{hint}")
    return float(number)


def _parts(text: str) -> tuple[str | None, str]:
    """The currency sign of *text*, if any, and its number without spaces and apostrophes between thousands."""
    found = _CURRENCY.fullmatch(text.strip())
    if not found:
        return None, text
    sign, before, number, after = found.groups()
    if before and after:
        return None, text
    return before or after or None, sign + _SPACES.sub("", number.strip())
