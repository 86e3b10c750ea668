"""From scored rows to the records of one transaction: verdicts, terminal blocks and panes [P]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from centinela.events import Decision, TransactionReceived, TransactionScored, Variant, encode
from centinela.features.assemble import Columns
from centinela.features.layout import FeatureLayout, pack_rows, unpack_rows
from centinela.kafka.headers import event_headers
from centinela.kafka.port import Headers, Outgoing, Record
from centinela.model.panes import PaneModel, build_panes, pane_rows
from centinela.telemetry.tracing import TRACEPARENT
from centinela.topics import FEATURE_PANES, PREDICTIONS, TERMINAL_ACTIVITY
from centinela_predictor.models.scoring import ScoredBatch
from centinela_predictor.models.slot import ModelPair, ServedModel
from centinela_predictor.state.terminal_activity import Block, pack_block

if TYPE_CHECKING:
    from centinela.model.bundle import Manifest

SOURCE = "centinela/predictor"
Matrix = NDArray[np.float64]
_NO_MODEL = -1


@dataclass(slots=True)
class Batch:
    """The transactions of one partition that get a verdict in this batch; row *i* of every field belongs to the same
    one.

    ``matrix``: features as computed here, shape (n, k). ``to_score``: rows without a verdict of their own.
    """

    partition: int
    records: list[Record]
    events: list[TransactionReceived]
    columns: Columns
    matrix: Matrix
    to_score: NDArray[np.intp]
    watermark: int


class Emitter:
    """Builds the outgoing records of a batch.

    Args:
        layout: The columns of ``Batch.matrix``.
    """

    def __init__(self, layout: FeatureLayout) -> None:
        self._layout = layout
        self._panes: dict[tuple[int, str], tuple[ServedModel, PaneModel]] = {}

    def predictions(
        self, batch: Batch, scored: ScoredBatch | None, first: int, now: datetime
    ) -> list[TransactionScored]:
        """The verdict on each row of *batch*: its own, or that of *scored*, whose rows from *first* on are those
        without one."""
        vectors = pack_rows(batch.matrix)
        of_batch = slice(first, first + len(batch.to_score))
        ours = (
            iter(())
            if scored is None
            else zip(
                scored.decisions[of_batch],
                scored.variants[of_batch],
                scored.scores[of_batch].tolist(),
                scored.is_fraud[of_batch],
                scored.thresholds[of_batch],
                scored.model_versions[of_batch],
                scored.reasons[of_batch],
                strict=True,
            )
        )
        feature_set = self._layout.id
        found = []
        for event, vector in zip(batch.events, vectors, strict=True):
            verdict = event.verdict
            if verdict is None:
                decision, variant, score, is_fraud, threshold, model_version, reasons = next(ours)
                found.append(
                    TransactionScored(
                        transaction_id=event.transaction_id,
                        occurred_at=event.occurred_at,
                        amount=event.amount,
                        decision=decision,
                        variant=variant,
                        origin="stream",
                        feature_set=feature_set,
                        features=vector,
                        scored_at=now,
                        user_id=event.user_id,
                        terminal_id=event.terminal_id,
                        currency=event.currency,
                        score=score,
                        is_fraud=is_fraud,
                        threshold=threshold,
                        model_version=model_version,
                        reasons=reasons,
                    )
                )
            elif verdict.origin == "history":
                found.append(
                    self._prediction(
                        event,
                        vector,
                        self._layout.id,
                        verdict.scored_at or now,
                        origin="history",
                        decision=verdict.decision,
                        variant="none",
                        is_fraud=verdict.decision == "decline",
                        reasons=verdict.reasons,
                    )
                )
            else:
                served, layout = (
                    (vector, self._layout.id)
                    if verdict.features is None
                    else (verdict.features, verdict.feature_set or "")
                )
                found.append(
                    self._prediction(
                        event,
                        served,
                        layout,
                        verdict.scored_at or now,
                        origin="gateway",
                        decision=verdict.decision,
                        variant=verdict.variant,
                        score=verdict.score,
                        is_fraud=verdict.decision == "decline",
                        threshold=verdict.threshold,
                        model_version=verdict.model_version,
                        reasons=verdict.reasons,
                    )
                )
        return found

    def prediction_records(
        self, batch: Batch, predictions: Sequence[TransactionScored], now: datetime
    ) -> list[Outgoing]:
        """The records of *predictions*, keyed like their transactions and in their traces."""
        common = event_headers(event_type="TransactionScored", event_id="", source=SOURCE, time=now)
        of_batch = tuple(item for item in common if item[0] != "ce_id")
        return [
            Outgoing(
                PREDICTIONS.name,
                encode(prediction),
                record.key or (event.user_id or event.transaction_id).encode(),
                (*of_batch, ("ce_id", event.transaction_id.encode()), *_trace(record.headers)),
            )
            for record, event, prediction in zip(batch.records, batch.events, predictions, strict=True)
        ]

    def panes(self, batch: Batch, predictions: Sequence[TransactionScored], pair: ModelPair) -> list[Outgoing]:
        """The statistics of the rows that a model scored, here or in a gateway.

        Args:
            pair: The models whose reference edges are at hand.
        """
        at_hand: dict[tuple[str, Variant], ServedModel] = {}
        if pair.champion is not None:
            at_hand[pair.champion.version, "champion"] = pair.champion
        if pair.challenger is not None:
            at_hand[pair.challenger.version, "challenger"] = pair.challenger
        models: list[PaneModel] = []
        index: dict[tuple[str, Variant], int] = {}
        model_of = np.full(len(predictions), _NO_MODEL, dtype=np.intp)
        scores = np.zeros(len(predictions))
        for row, verdict in enumerate(predictions):
            if verdict.score is None or verdict.model_version is None:
                continue
            which = verdict.model_version, verdict.variant
            if which not in index:
                index[which] = len(models)
                model = at_hand.get(which)
                models.append(
                    self._pane_model(model, which[1]) if model else PaneModel(*which, np.empty(0, np.intp), None)
                )
            model_of[row], scores[row] = index[which], verdict.score
        if not models:
            return []
        columns = batch.columns
        rows = pane_rows(columns.ids, columns.users, columns.times, scores, np.array([p.is_fraud for p in predictions]))
        events = build_panes(
            rows,
            self._served_matrix(batch, predictions),
            model_of,
            models,
            partition=batch.partition,
            watermark_ms=batch.watermark,
        )
        key = b"%d" % batch.partition
        return [Outgoing(FEATURE_PANES.name, encode(event), key, partition=batch.partition) for event in events]

    def _prediction(
        self,
        event: TransactionReceived,
        features: bytes,
        feature_set: str,
        scored_at: datetime,
        *,
        origin: Literal["gateway", "history"],
        decision: Decision,
        variant: Variant,
        is_fraud: bool,
        reasons: tuple[str, ...],
        score: float | None = None,
        threshold: float | None = None,
        model_version: str | None = None,
    ) -> TransactionScored:
        return TransactionScored(
            transaction_id=event.transaction_id,
            occurred_at=event.occurred_at,
            amount=event.amount,
            decision=decision,
            variant=variant,
            origin=origin,
            feature_set=feature_set,
            features=features,
            scored_at=scored_at,
            user_id=event.user_id,
            terminal_id=event.terminal_id,
            currency=event.currency,
            score=score,
            is_fraud=is_fraud,
            threshold=threshold,
            model_version=model_version,
            reasons=reasons,
        )

    def _served_matrix(self, batch: Batch, predictions: Sequence[TransactionScored]) -> Matrix:
        """The vectors as served: a gateway's own where they have this layout."""
        rows = [n for n, p in enumerate(predictions) if p.origin == "gateway" and p.feature_set == self._layout.id]
        if not rows:
            return batch.matrix
        matrix = batch.matrix.copy()
        matrix[rows] = unpack_rows([predictions[n].features for n in rows], matrix.shape[1])
        return matrix

    def _pane_model(self, model: ServedModel, variant: Variant) -> PaneModel:
        known = self._panes.get((id(model), variant))
        if known is None or known[0] is not model:
            manifest: Manifest = model.scorer.manifest
            columns = np.array([self._layout.names.index(name) for name in manifest.feature_names], dtype=np.intp)
            known = model, PaneModel(model.version, variant, columns, manifest.reference.edge_matrix())
            self._panes = {(id(model), variant): known} | dict(list(self._panes.items())[:3])
        return known[1]


def _trace(headers: Headers) -> Headers:
    """The first trace context among *headers*."""
    for item in headers:
        if item[0] == TRACEPARENT:
            return (item,)
    return ()


def block_record(partition: int, block: Block) -> Outgoing:
    """The record of *block*, to the partition it came from."""
    return Outgoing(TERMINAL_ACTIVITY.name, pack_block(block), b"%d" % partition, partition=partition)
