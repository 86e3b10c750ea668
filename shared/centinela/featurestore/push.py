"""Pushes served vectors to the views of a feature store that have a push source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from feast import FeatureStore, PushSource


@dataclass(frozen=True)
class Target:
    """A push source and its columns.

    Attributes:
        source: Its name.
        keys: Columns that name the entity.
        times: Columns of the event's and of the verdict's time.
        features: Feature by the name of its column in the archive.
    """

    source: str
    keys: tuple[str, ...]
    times: tuple[str, ...]
    features: dict[str, str]

    def rows(self, served: pd.DataFrame) -> pd.DataFrame:
        """The part of *served* to push: rows that name the entity; a feature that the vector lacks is NaN."""
        named = served.dropna(subset=list(self.keys))
        return named.reindex(columns=[*self.keys, *self.times, *self.features]).rename(columns=self.features)


class FeaturePusher:
    """Pushes to *store*, whose definitions are applied.

    Raises:
        ValueError: No view has a push source.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._targets = _targets(store)
        if not self._targets:
            raise ValueError("no feature view has a push source: there is nothing to push to")

    @property
    def targets(self) -> Sequence[Target]:
        """The push sources and their columns."""
        return self._targets

    def push(self, served: pd.DataFrame) -> None:
        """Push *served*: verdicts in log order, by the archive's columns. Pushing twice changes nothing.

        Raises:
            DependencyUnavailable: The online store is unavailable; a part may be written, and may be written again.
        """
        for target in self._targets:
            rows = target.rows(served)
            if len(rows):
                self._store.push(target.source, rows)


def _targets(store: FeatureStore) -> list[Target]:
    targets: dict[str, Target] = {}
    for view in store.list_feature_views():
        source, archive = view.stream_source, view.batch_source
        if not isinstance(source, PushSource) or archive is None:
            continue
        names = {new: old for old, new in archive.field_mapping.items()}
        features = {names.get(feature.name, feature.name): feature.name for feature in view.features}
        keys = tuple(column.name for column in view.entity_columns)
        times = tuple(name for name in (archive.timestamp_field, archive.created_timestamp_column) if name)
        earlier = targets.get(source.name)
        targets[source.name] = Target(source.name, keys, times, (earlier.features if earlier else {}) | features)
    return list(targets.values())
