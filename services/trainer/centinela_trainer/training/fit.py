"""From a dataset to a candidate: fits, out-of-sample scores and thresholds. No I/O.

**What the gate measures.** Fraud patterns change: trained strictly before the newest mature days, a challenger cannot
know the pattern that it was asked for, however many of its frauds are labelled by now. So within these *test days*
scores are cross-fitted over cards: the scores of each fold come from a model that saw everything before the test days,
and of the test days only the cards of the other folds. No card is scored by a model that saw it in the test days. This
estimates how the refitted model, which sees all of it, does on other cards under the patterns of these days; it does
not estimate how it does when patterns change again. That is what the *forward* scores show: from a model trained before
the test days (and the gap). The champion, trained earlier, is scored on the same rows as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from centinela.errors import CentinelaError
from centinela.model.backends import as_served
from centinela_trainer.params import ModelKind, Params
from centinela_trainer.training.dataset import Bools, Dataset, Floats, Rows, Split, card_folds, split_by_time
from centinela_trainer.training.estimators import Classifier, build_estimator
from centinela_trainer.training.evaluation import Thresholds, choose_thresholds


class NotEnoughData(CentinelaError):
    """The archive does not hold enough mature, labelled transactions to train on."""


@dataclass(frozen=True)
class Candidate:
    """A trained model and what it scored out of sample on the test rows.

    ``names``: its features, in order. ``test_scores``, ``forward_scores``: shape (len(split.test),).
    """

    estimator: Classifier
    kind: ModelKind
    names: tuple[str, ...]
    split: Split
    test_scores: Floats
    forward_scores: Floats
    thresholds: Thresholds


def require_enough(dataset: Dataset, params: Params) -> None:
    """Raise ``NotEnoughData`` where *dataset* is too small to learn anything from."""
    frauds = int(dataset.is_fraud.sum())
    if len(dataset) < params.train.min_rows or frauds < params.train.min_frauds:
        raise NotEnoughData(
            f"{len(dataset)} mature transactions with {frauds} frauds; "
            f"at least {params.train.min_rows} with {params.train.min_frauds} are needed"
        )


def train(dataset: Dataset, kind: ModelKind, params: Params) -> Candidate:
    """Fit a candidate of *kind* on *dataset*; the same input gives the same candidate.

    Raises:
        NotEnoughData: Too few rows, or no fraud before the test days.
    """
    require_enough(dataset, params)
    split = split_by_time(
        dataset,
        test_days=params.evaluate.test_days,
        max_test_share=params.evaluate.max_test_share,
        gap_days=params.evaluate.gap_days,
    )
    if not dataset.is_fraud[split.train].any():
        raise NotEnoughData(f"no fraud among the {len(split.train)} transactions before the test days")
    names = dataset.present()
    matrix, truth = as_served(dataset.columns(names)), dataset.is_fraud.astype(np.int64)

    def fitted(rows: Rows) -> Classifier:
        estimator = build_estimator(kind, params)
        estimator.fit(matrix[rows], truth[rows])
        return estimator

    forward = fitted(split.train)
    forward_scores = fraud_scores(forward, matrix[split.test])
    test_scores = forward_scores
    if params.evaluate.folds > 1:
        test_scores = np.empty(len(split.test))
        before, folds = (
            np.arange(split.test[0]),
            card_folds(dataset.groups[split.test], params.evaluate.folds, params.seed),
        )
        for fold in np.unique(folds):
            held_out = folds == fold
            model = fitted(np.concatenate([before, split.test[~held_out]]))
            test_scores[held_out] = fraud_scores(model, matrix[split.test[held_out]])
    return Candidate(
        estimator=fitted(np.arange(len(dataset))) if params.train.refit else forward,
        kind=kind,
        names=names,
        split=split,
        test_scores=test_scores,
        forward_scores=forward_scores,
        thresholds=_thresholds(dataset.is_fraud[split.test], test_scores, params),
    )


def fraud_scores(estimator: Classifier, matrix: Floats) -> Floats:
    """Scores in [0, 1], shape (n,), of *matrix*, shape (n, features)."""
    return np.asarray(estimator.predict_proba(matrix)[:, 1], dtype=np.float64)


def _thresholds(is_fraud: Bools, scores: Floats, params: Params) -> Thresholds:
    threshold = params.threshold
    return choose_thresholds(
        is_fraud,
        scores,
        policy=threshold.policy,
        alert_budget=threshold.alert_budget,
        review_budget=threshold.review_budget,
    )
