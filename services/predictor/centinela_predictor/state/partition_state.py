"""What the stream keeps of one partition of ``transactions``, and its form on disk."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from centinela.events import DEFAULT_CURRENCY
from centinela.features.assemble import Columns
from centinela.features.layout import BASE_LAYOUT, FeatureLayout
from centinela.features.payload import contradict
from centinela.features.snapshots.format import pack, unpack
from centinela.features.state.id_table import SeenIds
from centinela.features.state.users import UserState

_KIND = "partition:3"
_NEVER = -(1 << 62)
_NOT_REPARTITIONED = -1
Matrix = NDArray[np.float64]


class PartitionState:
    """The ids seen, the users' histories and the greatest event time (ms) of one partition.

    ``repartitioned_at``: where the topic has grown, the partition's end when its users' history was gathered from all
    partitions.

    Args:
        dedupe_ids: A copy is recognized among at least this many of the partition's last transactions.
        layout: Which extra features there are.
        currency: Of the amounts.
    """

    def __init__(
        self, dedupe_ids: int = 1_000_000, layout: FeatureLayout = BASE_LAYOUT, currency: str = DEFAULT_CURRENCY
    ) -> None:
        self.seen = SeenIds(dedupe_ids)
        self.users = UserState(layout)
        self._kind = _kind(layout, currency)
        self.newest = _NEVER
        self.repartitioned_at: int | None = None

    def apply(self, columns: Columns) -> tuple[NDArray[np.intp], Matrix]:
        """Take transactions in log order: the rows with new ids, shape (m,), and their user features, shape (m, k)."""
        rows = np.flatnonzero(self.seen.admit(columns.ids, columns.payloads))
        new = columns if len(rows) == len(columns) else columns.take(rows)
        if len(new):
            self.newest = max(self.newest, int(new.times.max()))
        return rows, self.users.apply(new.users, new.times, new.minor, new.stored)

    def conflicting(self, columns: Columns, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of *columns*, just applied, the rows whose ids were seen before with another payload.

        Args:
            rows: What ``apply`` took.
        """
        again = np.setdiff1d(np.arange(len(columns)), rows, assume_unique=True)
        return again[contradict(self.seen.payloads(columns.ids[again]), columns.payloads[again])]

    def inherit(self, columns: Columns) -> None:
        """Apply transactions that came through another partition; this one's greatest event time does not change."""
        newest = self.newest
        self.apply(columns)
        self.newest = newest

    def to_bytes(self) -> bytes:
        """The state as a snapshot."""
        facts = {
            "newest": self.newest,
            "regrouped_at": _NOT_REPARTITIONED if self.repartitioned_at is None else self.repartitioned_at,
        }
        return pack(self._kind, facts, {**self.users.arrays(), **self.seen.arrays()})

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        dedupe_ids: int = 1_000_000,
        layout: FeatureLayout = BASE_LAYOUT,
        currency: str = DEFAULT_CURRENCY,
    ) -> PartitionState:
        """The state of a snapshot.

        Raises:
            SnapshotDamaged: The bytes are not such a snapshot, have other columns than *layout* stores, or amounts in
                another currency than *currency*.
        """
        facts, arrays = unpack(_kind(layout, currency), data)
        state = cls(dedupe_ids, layout, currency)
        state.newest = facts["newest"]
        state.repartitioned_at = None if facts["regrouped_at"] == _NOT_REPARTITIONED else facts["regrouped_at"]
        state.users = UserState.from_arrays(arrays, layout)
        state.seen.load(arrays)
        return state


def _kind(layout: FeatureLayout, currency: str) -> str:
    """What a snapshot must be of; earlier releases knew no currency but the default one."""
    kind = _KIND if currency == DEFAULT_CURRENCY else f"{_KIND}@{currency}"
    return ":".join([kind, *layout.stored])
