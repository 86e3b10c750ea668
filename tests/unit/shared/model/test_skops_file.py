"""The same training gives the same file."""

from __future__ import annotations

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from centinela.model.backends import TRUSTED_TYPES
from centinela.model.skops_file import dump

MATRIX = np.random.default_rng(0).normal(size=(400, 4))
TRUTH = (MATRIX[:, 0] + MATRIX[:, 1] > 1).astype(int)
MAKERS = {
    "hgb": lambda: HistGradientBoostingClassifier(max_iter=4, early_stopping=False, random_state=1),
    "rf": lambda: make_pipeline(SimpleImputer(), RandomForestClassifier(5, random_state=1)),
    "lr": lambda: make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_two_trainings_on_the_same_rows_give_the_same_bytes_and_the_model_survives(kind: str) -> None:
    one, two = (MAKERS[kind]().fit(MATRIX, TRUTH) for _ in range(2))
    data = dump(one)
    assert data == dump(two)
    assert skops.io.dumps(one) != skops.io.dumps(two)  # else all this would be for nothing
    loaded = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
    np.testing.assert_array_equal(loaded.predict_proba(MATRIX), one.predict_proba(MATRIX))


def test_another_model_gives_other_bytes() -> None:
    assert dump(MAKERS["lr"]().fit(MATRIX, TRUTH)) != dump(MAKERS["lr"]().fit(MATRIX[1:], TRUTH[1:]))
