"""Maps the columns of a file to a transaction's fields. A mapping is a small YAML file; two ship with the package."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from centinela.errors import CentinelaError

SHIPPED = ("ulb", "handbook")
Field = Literal["transaction_id", "occurred_at", "user_id", "terminal_id", "amount", "is_fraud"]
Unit = Literal["s", "ms"]


class MappingError(CentinelaError):
    """A mapping is invalid, or does not fit the file."""


class TimeRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How ``occurred_at`` is read: as a number of *unit* from *base*, or (no unit) as a timestamp, in *zone* if it
    has none."""

    unit: Unit | None = None
    base: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    zone: str = "UTC"

    def tz(self) -> tzinfo:
        return ZoneInfo(self.zone)


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``columns``: the file's column to the field. ``attributes``: the file's column to an attribute's name.

    ``id_prefix`` goes before every transaction id; without a column of ids it is followed by the row's number.
    """

    columns: dict[str, Field]
    attributes: dict[str, str] = {}
    time: TimeRule = TimeRule()
    id_prefix: str = ""

    def column(self, field: Field) -> str | None:
        """The file's column of *field*, or None."""
        return next((column for column, name in self.columns.items() if name == field), None)

    def with_prefix(self, id_prefix: str) -> Mapping:
        """The same mapping with another ``id_prefix``."""
        return msgspec.structs.replace(self, id_prefix=id_prefix)

    @property
    def required(self) -> list[str]:
        """All columns that the file must have."""
        return [*self.columns, *self.attributes]

    def require(self, columns: Sequence[str], source: str) -> None:
        """Check that the file has all columns.

        Raises:
            MappingError: Some are missing; the message names them and those that exist.
        """
        if missing := [name for name in self.required if name not in columns]:
            raise MappingError(
                f"{source} has no column {_list(missing)}, which the mapping names; its columns: {_list(columns)}"
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
            f"mapping {choice!r} is neither {_list(SHIPPED)} nor a file that can be read ({error})"
        ) from error


def detect(columns: Sequence[str], source: str) -> tuple[str, Mapping]:
    """The shipped mapping whose columns are all in *columns*, with its name.

    Raises:
        MappingError: None fits; the message says what each lacks.
    """
    lacking = []
    for name in SHIPPED:
        mapping = shipped(name)
        missing = [column for column in mapping.required if column not in columns]
        if not missing:
            return name, mapping
        lacking.append(f"{name} (lacks {_list(missing)})")
    raise MappingError(
        f"{source} has none of the known layouts: {'; '.join(lacking)}. Its columns: {_list(columns)}. "
        "Name its columns in a mapping file and pass --mapping PATH."
    )


def _parse(text: str, source: str) -> Mapping:
    try:
        content: Any = yaml.safe_load(text)
    except Exception as error:  # also AttributeError, ValueError and RecursionError, for dates, numbers and nesting
        raise MappingError(f"mapping {source}: not valid YAML ({error})") from error
    try:
        mapping = msgspec.convert(content, Mapping)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise MappingError(f"mapping {source}: {error}") from error
    for field in ("occurred_at", "amount"):
        if field not in mapping.columns.values():
            raise MappingError(f"mapping {source}: columns has no entry for {field!r}, which every transaction needs")
    if len(set(mapping.columns.values())) < len(mapping.columns):
        raise MappingError(f"mapping {source}: columns names a field twice")
    if mapping.column("transaction_id") is None and not mapping.id_prefix:
        raise MappingError(
            f"mapping {source}: without a column for 'transaction_id' an id_prefix is needed, to number the rows"
        )
    if mapping.time.base.tzinfo is None:
        raise MappingError(f"mapping {source}: time.base needs a zone, such as a closing Z")
    try:
        mapping.time.tz()
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise MappingError(f"mapping {source}: time.zone {mapping.time.zone!r} does not exist") from error
    return mapping


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown
