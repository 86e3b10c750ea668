"""From scored rows to the records of one Kafka transaction: verdicts and panes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from centinela.events import PURCHASE, AttachedVerdict, TransactionReceived, TransactionScored, Variant, Verdict, encode
from centinela.features.assemble import Columns
from centinela.features.layout import FeatureLayout, pack_rows, unpack_rows
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Headers, Outgoing, Record
from centinela.model.panes import PaneModel, build_panes, pane_rows
from centinela.telemetry.tracing import TRACEPARENT
from centinela.topics import FEATURE_PANES, PREDICTIONS
from centinela_predictor.models.scoring import ScoredBatch, not_scored
from centinela_predictor.models.slot import ModelPair, ServedModel

if TYPE_CHECKING:
    from centinela.model.bundle import Manifest

SOURCE = event_source("predictor", "stream")
Matrix = NDArray[np.float64]
_NO_MODEL = -1


@dataclass(slots=True)
class Batch:
    """The transactions of one partition that get a verdict in this batch; row *i* of every field belongs to the same
    one.

    ``matrix``: features as computed here, shape (n, k). ``to_score``: the purchases without a verdict of their own.
    ``next_offset``: of ``transactions``, committed with the batch.
    """

    partition: int
    records: list[Record]
    events: list[TransactionReceived]
    columns: Columns
    matrix: Matrix
    to_score: NDArray[np.intp]
    watermark: int
    next_offset: int


class OutgoingRecords:
    """Builds the outgoing records of a batch.

    Args:
        layout: The columns of ``Batch.matrix``.
        currency: Of its amounts.
    """

    def __init__(self, layout: FeatureLayout, currency: str) -> None:
        self._layout = layout
        self._currency = currency
        self._panes: dict[tuple[int, str], tuple[ServedModel, PaneModel]] = {}

    def verdicts(self, batch: Batch, scored: Iterator[Verdict], now: datetime) -> list[Verdict]:
        """The verdict on each row of *batch*: the one that came with it, else the next of *scored*, which has one for
        each purchase."""
        if len(batch.to_score) == len(batch.events):
            return list(islice(scored, len(batch.events)))
        vectors = pack_rows(batch.matrix)
        return [
            self._adopted(event.verdict, vector, now)
            if event.verdict is not None
            else next(scored)
            if event.kind == PURCHASE
            else not_scored(Verdict, "stream", event.kind, vector, self._layout, now)
            for event, vector in zip(batch.events, vectors, strict=True)
        ]

    def _adopted(self, given: AttachedVerdict, vector: bytes, now: datetime) -> Verdict:
        """*given* with what it leaves out. History was scored by no model and is served the vector computed here."""
        if given.origin == "history":
            return Verdict(
                origin="history",
                decision=given.decision,
                variant="none",
                feature_set=self._layout.id,
                features=vector,
                reasons=given.reasons,
                scored_at=given.scored_at or now,
            )
        scored_at = given.scored_at or now
        if given.features is None:
            return replace(given, feature_set=self._layout.id, features=vector, scored_at=scored_at)
        return given if given.scored_at else replace(given, scored_at=scored_at)

    def predictions(self, batch: Batch, verdicts: Sequence[Verdict], now: datetime) -> list[Outgoing]:
        """The records of *verdicts*, keyed like their transactions and in their traces."""
        common = event_headers(event_type="TransactionScored", event_id="", source=SOURCE, time=now)
        of_batch = tuple(item for item in common if item[0] != "ce_id")
        return [
            Outgoing(
                PREDICTIONS.name,
                encode(TransactionScored.of(event, self._in_currency(event, verdict))),
                record.key or (event.user_id or event.transaction_id).encode(),
                (*of_batch, ("ce_id", event.transaction_id.encode()), *_trace(record.headers)),
            )
            for record, event, verdict in zip(batch.records, batch.events, verdicts, strict=True)
        ]

    def _in_currency(self, event: TransactionReceived, verdict: Verdict) -> Verdict:
        """*verdict* with the currency of its vector, where that was made here and is not the transaction's own."""
        if event.currency == self._currency:
            return verdict
        given = event.verdict
        made_here = given is None or given.origin != "gateway" or given.features is None
        return replace(verdict, feature_currency=self._currency) if made_here else verdict

    def panes(
        self,
        batch: Batch,
        verdicts: Sequence[Verdict],
        scored: ScoredBatch | None,
        first: int,
        pair: ModelPair,
    ) -> list[Outgoing]:
        """The statistics of the rows that a model scored, here or in a gateway.

        Args:
            scored: Its rows from *first* on are those of *batch* that were scored here.
            pair: The models whose reference edges are available for adopted verdicts.
        """
        models = _PaneModels(self._pane_model, pair)
        size = len(batch.events)
        model_of, scores, alerts = np.full(size, _NO_MODEL), np.zeros(size), np.zeros(size, dtype=np.bool_)
        matrix = batch.matrix
        if scored is not None and len(batch.to_score):
            of_batch = slice(first, first + len(batch.to_score))
            numbers = np.array([models.number(s.model.version, s.variant, s.model) for s in scored.shares])
            model_of[batch.to_score] = numbers[scored.share_of[of_batch]]
            scores[batch.to_score] = scored.scores[of_batch]
            alerts[batch.to_score] = scored.is_fraud[of_batch]
        if len(batch.to_score) < size:
            matrix = self._place_adopted(batch, verdicts, models, model_of, scores, alerts)
        if not models.listed:
            return []
        columns = batch.columns
        events = build_panes(
            pane_rows(columns.ids, columns.users, columns.times, scores, alerts),
            matrix,
            model_of,
            models.listed,
            partition=batch.partition,
            watermark_ms=batch.watermark,
        )
        key = b"%d" % batch.partition
        return [Outgoing(FEATURE_PANES.name, encode(event), key, partition=batch.partition) for event in events]

    def _place_adopted(
        self,
        batch: Batch,
        verdicts: Sequence[Verdict],
        models: _PaneModels,
        model_of: NDArray[np.intp],
        scores: NDArray[np.float64],
        alerts: NDArray[np.bool_],
    ) -> Matrix:
        """Fill the rows of adopted verdicts in the columns given; the matrix as served, which has a gateway's own
        vectors where they have this layout."""
        by_model = [
            (row, verdict)
            for row, (event, verdict) in enumerate(zip(batch.events, verdicts, strict=True))
            if event.verdict is not None and verdict.score is not None
        ]
        if not by_model:
            return batch.matrix
        rows = [row for row, _ in by_model]
        model_of[rows] = [models.number(verdict.model_version or "", verdict.variant) for _, verdict in by_model]
        scores[rows] = [verdict.score for _, verdict in by_model]
        alerts[rows] = [verdict.decision == "decline" for _, verdict in by_model]
        served = [(row, verdict.features or b"") for row, verdict in by_model if verdict.feature_set == self._layout.id]
        if not served:
            return batch.matrix
        matrix = batch.matrix.copy()
        matrix[[row for row, _ in served]] = unpack_rows([vector for _, vector in served], matrix.shape[1])
        return matrix

    def _pane_model(self, model: ServedModel, variant: Variant) -> PaneModel:
        cached = self._panes.get((id(model), variant))
        if cached is None or cached[0] is not model:
            manifest: Manifest = model.scorer.manifest
            columns = np.array([self._layout.names.index(name) for name in manifest.feature_names], dtype=np.intp)
            cached = model, PaneModel(model.version, variant, columns, manifest.reference.edge_matrix())
            self._panes = {(id(model), variant): cached} | dict(list(self._panes.items())[:3])
        return cached[1]


class _PaneModels:
    """The models that scored rows of a batch, numbered as they occur.

    Args:
        describe: Gives a loaded model as panes see it.
        pair: The models that are loaded.
    """

    def __init__(self, describe: Callable[[ServedModel, Variant], PaneModel], pair: ModelPair) -> None:
        self._describe = describe
        self._loaded: dict[tuple[str, Variant], ServedModel] = {}
        if pair.champion is not None:
            self._loaded[pair.champion.version, "champion"] = pair.champion
        if pair.challenger is not None:
            self._loaded[pair.challenger.version, "challenger"] = pair.challenger
        self._numbers: dict[tuple[str, Variant], int] = {}
        self.listed: list[PaneModel] = []

    def number(self, version: str, variant: Variant, model: ServedModel | None = None) -> int:
        """The index into ``listed`` of *version* as *variant*. Without *model* it is one of those loaded, or has no
        reference edges."""
        key = version, variant
        if key not in self._numbers:
            self._numbers[key] = len(self.listed)
            model = model or self._loaded.get(key)
            self.listed.append(
                self._describe(model, variant) if model else PaneModel(version, variant, np.empty(0, np.intp), None)
            )
        return self._numbers[key]


def _trace(headers: Headers) -> Headers:
    """The first trace context among *headers*."""
    for item in headers:
        if item[0] == TRACEPARENT:
            return (item,)
    return ()
