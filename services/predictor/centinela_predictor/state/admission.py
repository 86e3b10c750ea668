"""Which records of ``transactions`` are valid transactions: checked in one place before feature state, for the stream,
its replay and the gateways' replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from centinela.codec import FUTURE_TOLERANCE, Decoder, time_fault
from centinela.deadletters.record import DeadLetter
from centinela.errors import InvalidRecord
from centinela.events import PURCHASE, AttachedVerdict, Kind, TransactionReceived
from centinela.features.assemble import Columns
from centinela.features.currency import BASE_ONLY, Rates
from centinela.features.known_fields import KnownFields, unknown_name
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.kafka.port import Record
from centinela.times import to_ms


class _Strict(TransactionReceived, frozen=True, forbid_unknown_fields=True):
    """A transaction without any field that this release does not know."""


_strict: Decoder[TransactionReceived] = Decoder(_Strict)
_decoder: Decoder[TransactionReceived] = Decoder(TransactionReceived)
_ATTRIBUTE = "attributes.{}"
_FIELDS = frozenset(TransactionReceived.__struct_fields__)
_FUTURE_MS = int(FUTURE_TOLERANCE.total_seconds() * 1000)


@dataclass(frozen=True)
class AdmissionRules:
    """What transactions must keep to beyond their schema: the same for the stream, its replay and the gateways.

    Args:
        known: The attributes that they may have; None: any.
        rates: The base currency and the rates of others; what has no rate is refused.
    """

    known: KnownFields | None = None
    rates: Rates = BASE_ONLY


SCHEMA_ONLY = AdmissionRules()


@dataclass(frozen=True, slots=True)
class Admitted:
    """The transactions among some records, in their order, and a dead letter for each of the others.

    ``unknown``: the offset and the name of each field of theirs that nobody knows.
    """

    records: list[Record]
    events: list[TransactionReceived]
    columns: Columns
    refused: list[DeadLetter]
    unknown: list[tuple[int, str]] = field(default_factory=list)

    def before(self, offset: int) -> Admitted:
        """The part before *offset*, where all records are of one partition."""
        n = sum(record.offset < offset for record in self.records)
        return Admitted(
            self.records[:n],
            self.events[:n],
            self.columns.take(np.arange(n)),
            [r for r in self.refused if r.record.offset < offset],
            [(at, name) for at, name in self.unknown if at < offset],
        )


def admit(
    records: Sequence[Record],
    now: datetime,
    layout: FeatureLayout = BASE_LAYOUT,
    rules: AdmissionRules = SCHEMA_ONLY,
) -> Admitted:
    """Decode *records* and refuse those that cannot be a transaction.

    Whether a time is in the future is judged by the record's own timestamp where that is not later than *now*, so that
    a record refused today is also refused when it is read again tomorrow.

    Args:
        records: Of one partition or of several, in any mix.
        layout: The layout that the columns are for.
        rules: What else to refuse.
    """
    refused: list[DeadLetter] = []
    good: list[Record] = []
    events: list[TransactionReceived] = []
    decoded, names = _decoded(records, rules.known)
    for n, (record, event) in enumerate(zip(records, decoded, strict=True)):
        fault = (
            event
            if isinstance(event, InvalidRecord)
            else None
            if event.verdict is None and n not in names
            else _fault(event, names.get(n, ()), rules)
        )
        if fault is None:
            good.append(record)
            events.append(event)  # type: ignore[arg-type]
        else:
            refused.append(DeadLetter.of(record, fault))
    reported = {} if rules.known is None or rules.known.refuse else names
    unknown = [(records[n].offset, name) for n in reported for name in reported[n]]
    columns = Columns.of(events, layout, rules.rates)
    ahead = _ahead(columns, good, to_ms(now))
    without_rate = np.isnan(columns.amounts) & ~ahead
    if ahead.any() or without_rate.any():
        for n in np.flatnonzero(ahead).tolist():
            fault = time_fault(events[n], good[n].timestamp_ms, now)
            assert fault is not None, "_ahead is the same rule, for many at once"
            refused.append(DeadLetter.of(good[n], fault))
        refused += [
            DeadLetter.of(good[n], _rate_fault(events[n], rules.rates)) for n in np.flatnonzero(without_rate).tolist()
        ]
        keep = np.flatnonzero(~(ahead | without_rate))
        good, events, columns = [good[n] for n in keep], [events[n] for n in keep], columns.take(keep)
    return Admitted(good, events, columns, refused, unknown)


def _decoded(
    records: Sequence[Record], known: KnownFields | None
) -> tuple[list[TransactionReceived | InvalidRecord], dict[int, tuple[str, ...]]]:
    """The event of each record, or why it is none; and by row the names of fields that nobody knows.

    Records without such fields are decoded once. The others are decoded again, without regard to them: a later release
    may have added an optional field.
    """
    values = [record.value for record in records]
    if known is None:
        return _decoder.decode_many(values), {}
    decoded = _strict.decode_many(values)
    names: dict[int, tuple[str, ...]] = {}
    for row, event in enumerate(decoded):
        if isinstance(event, InvalidRecord):
            if name := unknown_name(event.detail):
                names[row] = (name,)
        elif event.attributes and (unknown := known.unknown(event.attributes)):
            names[row] = tuple(map(_ATTRIBUTE.format, unknown))
    again = [row for row, event in enumerate(decoded) if isinstance(event, InvalidRecord) and row in names]
    for row, event in zip(again, _decoder.decode_many([values[row] for row in again]), strict=True):
        decoded[row] = event
        if isinstance(event, InvalidRecord):
            del names[row]
        else:
            names[row] += tuple(map(_ATTRIBUTE.format, known.unknown(event.attributes)))
    return decoded, names


def _fault(event: TransactionReceived, names: tuple[str, ...], rules: AdmissionRules) -> InvalidRecord | None:
    """Why *event* cannot be used, or None. *names*: its fields that nobody knows."""
    if names and rules.known is not None and rules.known.refuse:
        return InvalidRecord("unknown_field", rules.known.explain(names[0], _FIELDS))
    return verdict_fault(event.verdict, event.kind)


def verdict_fault(verdict: AttachedVerdict | None, kind: Kind = PURCHASE) -> InvalidRecord | None:
    """Why a verdict that came with its transaction, of *kind*, cannot be adopted, or None."""
    if verdict is None or verdict.origin == "history":
        return None
    if kind != PURCHASE and (verdict.score is not None or verdict.variant != "none"):
        return InvalidRecord("invalid_verdict", f"a {kind} is scored by no model: no score, variant none")
    if kind == PURCHASE and (verdict.score is None or verdict.model_version is None or verdict.variant == "none"):
        return InvalidRecord("invalid_verdict", "a gateway's verdict needs score, model_version and variant")
    if verdict.features is not None:
        try:
            width = len(FeatureLayout.parse(verdict.feature_set or "").names)
        except ValueError as error:
            return InvalidRecord("invalid_verdict", str(error))
        if len(verdict.features) != 8 * width:
            return InvalidRecord(
                "invalid_verdict", f"{len(verdict.features)} bytes of features; feature_set has {width} columns of 8"
            )
    return None


def _ahead(columns: Columns, records: Sequence[Record], now_ms: int) -> NDArray[np.bool_]:
    stamps = np.array([r.timestamp_ms for r in records], dtype=np.int64)
    reference = np.where((stamps > 0) & (stamps < now_ms), stamps, now_ms)
    ahead: NDArray[np.bool_] = columns.times > reference + _FUTURE_MS
    return ahead


def _rate_fault(event: TransactionReceived, rates: Rates) -> InvalidRecord:
    return InvalidRecord("no_rate", rates.missing(event.currency, to_ms(event.occurred_at)) or "no rate")


def by_partition(records: Sequence[Record]) -> dict[int, list[Record]]:
    """Records by partition, in order."""
    parts: dict[int, list[Record]] = {}
    for number, run in groupby(records, attrgetter("partition")):
        parts.setdefault(number, []).extend(run)
    return parts
