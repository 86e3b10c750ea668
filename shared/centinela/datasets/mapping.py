"""Maps the columns of a file to a transaction's fields. A mapping is a small YAML file; some ship with the package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from centinela.errors import CentinelaError
from centinela.events import DEFAULT_CURRENCY

SHIPPED = ("ulb", "handbook", "paysim", "sparkov", "ieee-cis", "banksim", "postgres")
Field = Literal["transaction_id", "occurred_at", "user_id", "terminal_id", "amount", "currency", "kind", "is_fraud"]
Unit = Literal["ns", "us", "ms", "s", "m", "h", "d"]
UNIT_MS: Final = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3_600e3, "d": 86_400e3}
_RESERVED = frozenset({*get_args(Field), "occurred_ms", "position", "reported_ms"})
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


class MappingError(CentinelaError):
    """A mapping is invalid, or does not fit the file."""


class TimeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How ``occurred_at`` is read: as a number of *unit* from *base*, or (no unit) as a timestamp, in *zone* if it
    has none. *format* spells timestamps that could mean two things, as in ``strptime``."""

    unit: Unit | None = None
    base: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    zone: str = "UTC"
    format: str | None = None

    def tz(self) -> tzinfo:
        return ZoneInfo(self.zone)


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``columns``: the file's column to the field. ``attributes``: the file's column to an attribute's name.

    A column may be both. ``id_prefix`` goes before every transaction id; without a column of ids it is followed by the
    row's number. ``exact_ids`` keeps ids as they are written: 1234.0 is then another id than 1234.
    ``currency`` is that of all amounts, where no column names it; None is the platform's base currency.
    """

    columns: dict[str, Field]
    attributes: dict[str, str] = {}
    time: TimeRule = TimeRule()
    id_prefix: str = ""
    exact_ids: bool = False
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] | None = None

    def column(self, field: Field) -> str | None:
        """The file's column of *field*, or None."""
        return next((column for column, name in self.columns.items() if name == field), None)

    def with_prefix(self, id_prefix: str) -> Mapping:
        """The same mapping with another ``id_prefix``."""
        return msgspec.structs.replace(self, id_prefix=id_prefix)

    def with_default_currency(self, currency: str) -> Mapping:
        """The same mapping, with *currency* unless it names one."""
        return self if self.currency else msgspec.structs.replace(self, currency=currency)

    @property
    def required(self) -> list[str]:
        """All columns that the file must have."""
        return list(dict.fromkeys([*self.columns, *self.attributes]))

    @property
    def numeric(self) -> list[str]:
        """The columns that hold numbers."""
        fields = ("amount", "occurred_at") if self.time.unit else ("amount",)
        return [*self.attributes, *(column for column, field in self.columns.items() if field in fields)]

    @property
    def usual_currency(self) -> str:
        """The currency of amounts for which no column names one."""
        return self.currency or DEFAULT_CURRENCY

    @property
    def one_currency(self) -> str | None:
        """The currency of all amounts; None where a column names it."""
        return self.usual_currency if self.column("currency") is None else None

    def require(self, columns: Sequence[str], source: str) -> None:
        """Check that the file has all columns, each once.

        Raises:
            MappingError: Some are missing, or there twice; the message names them.
        """
        if missing := [name for name in self.required if name not in columns]:
            raise MappingError(
                f"{source} has no column {_list(missing)}, which the mapping names; its columns:"
                f" {_list(columns)}{_hint(columns)}"
            )
        for name in self.required:
            places = [place for place, column in enumerate(columns, 1) if column == name]
            if len(places) > 1:
                raise MappingError(
                    f"{source} has {len(places)} columns named {name!r} (columns {', '.join(map(str, places))}): which"
                    " one is meant? Rename the other"
                )


def shipped(name: str) -> Mapping:
    """The mapping *name* of this package."""
    return _parse((resources.files("centinela.datasets") / "mappings" / f"{name}.yaml").read_text("utf-8"), name)


def load_mapping(choice: str) -> Mapping:
    """A shipped mapping by name, or another by path.

    Raises:
        MappingError: The file does not exist, is not valid YAML, or has an unknown key, field, unit or zone.
    """
    if choice in SHIPPED:
        return shipped(choice)
    path = Path(choice)
    try:
        return _parse(path.read_text("utf-8"), choice)
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(
            f"mapping {choice!r} is neither shipped ({_list(SHIPPED)}) nor a file that can be read ({error})"
        ) from error


def detect(columns: Sequence[str], source: str) -> tuple[str, Mapping]:
    """The shipped mapping whose columns are all in *columns*, with its name.

    Raises:
        MappingError: None fits; the message says what the closest has that the file has not.
    """
    lacking: dict[str, list[str]] = {}
    for name in SHIPPED:
        required = shipped(name).required
        lacking[name] = [column for column in required if column not in columns]
        if not lacking[name]:
            return name, shipped(name)
    closest = min(lacking, key=lambda name: len(lacking[name]) / len(shipped(name).required))
    near = (
        ""
        if len(lacking[closest]) == len(shipped(closest).required)
        else (f" The closest, {closest}, has {_list(lacking[closest])} too.")
    )
    raise MappingError(
        f"{source} has none of the known layouts ({_list(SHIPPED)}). Its columns: {_list(columns)}{_hint(columns)}."
        f"{near} Name its columns in a mapping file and pass --mapping PATH (docs/data-files.md)."
    )


def _parse(text: str, source: str) -> Mapping:
    try:
        content: Any = yaml.load(text, _UniqueKeysSafeLoader)  # noqa: S506 a safe loader
    except Exception as error:  # also AttributeError, ValueError and RecursionError, for dates, numbers and nesting
        raise MappingError(f"mapping {source}: not valid YAML ({error})") from error
    try:
        mapping = msgspec.convert(content, Mapping)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise MappingError(f"mapping {source}: {error}") from error
    try:
        _require_clear_names(mapping)
        _require_readable_times(mapping.time)
    except MappingError as error:
        raise MappingError(f"mapping {source}: {error}") from error
    return mapping


class _UniqueKeysSafeLoader(yaml.SafeLoader):
    """Refuses a key that occurs twice, where YAML would take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"{twice!r} occurs twice, with {_values(node, twice)}")
        return super().construct_mapping(node, deep)


def _values(node: yaml.MappingNode, key: str) -> str:
    return " and ".join(str(value.value) for found, value in node.value if found.value == key)


def _require_clear_names(mapping: Mapping) -> None:
    for field in ("occurred_at", "amount"):
        if field not in mapping.columns.values():
            raise MappingError(f"columns has no entry for {field!r}, which every transaction needs")
    for kind, named in (("columns", mapping.columns), ("attributes", mapping.attributes)):
        for name in named.values():
            sources = [column for column, other in named.items() if other == name]
            if len(sources) > 1:
                what = "names a field twice" if kind == "columns" else "gives a name twice"
                raise MappingError(f"{kind} {what}: {' and '.join(sources)} are both {name}")
    if taken := [f"{column}: {name}" for column, name in mapping.attributes.items() if name in _RESERVED]:
        raise MappingError(f"attributes: {_list(taken)}: that is a field's name; give the attribute another one")
    if mapping.column("transaction_id") is None and not mapping.id_prefix:
        raise MappingError("without a column for 'transaction_id' an id_prefix is needed, to number the rows")


def _require_readable_times(rule: TimeRule) -> None:
    if rule.base.tzinfo is None:
        raise MappingError("time.base needs a zone, such as a closing Z")
    if rule.unit and rule.format:
        raise MappingError(f"time.unit {rule.unit} is for numbers and time.format {rule.format} for text: keep one")
    if rule.format is not None and rule.format.count("%") < 3:
        raise MappingError(f"time.format {rule.format!r} is not a format such as %d/%m/%Y %H:%M:%S")
    try:
        rule.tz()
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise MappingError(f"time.zone {rule.zone!r} does not exist") from error


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown


def _hint(columns: Sequence[str]) -> str:
    """What may be the matter with a file of these columns."""
    if len(columns) == 1:
        return " (only one: if they are not separated by commas, semicolons, tabs or pipes, pass --separator)"
    if any(_NUMBER.fullmatch(name) for name in columns):
        return " (these look like values: the file needs a first line with the names of its columns)"
    return ""
