"""What arrived and is in no window, so that a report says what it does not see."""

from __future__ import annotations

import msgspec

from centinela.events import Finding
from centinela_drift.decision.detection import DATA_QUALITY


class LeftOut(msgspec.Struct, frozen=True):
    """Counts since the last report. ``ahead`` and ``late`` are among ``transactions``, ``late_labels`` among
    ``labels``; late ones are older than any window reaches back."""

    transactions: int = 0
    ahead: int = 0
    late: int = 0
    labels: int = 0
    late_labels: int = 0

    def with_transactions(self, count: int, *, ahead: int, late: bool) -> LeftOut:
        """One pane more; *ahead*: how many are too far ahead by now, since the last report."""
        return msgspec.structs.replace(
            self, transactions=self.transactions + count, ahead=ahead, late=self.late + (count if late else 0)
        )

    def with_label(self, *, late: bool) -> LeftOut:
        """One label more."""
        return msgspec.structs.replace(self, labels=self.labels + 1, late_labels=self.late_labels + late)

    def findings(self, limit: float) -> tuple[Finding, ...]:
        """``data_quality.ahead`` and ``data_quality.late``: their share of the transactions, a fault from *limit* on.
        ``late_labels`` is for information only: labels of transactions that were judged long ago are no fault."""
        shares = (
            (DATA_QUALITY + "ahead", self.ahead, self.transactions, limit),
            (DATA_QUALITY + "late", self.late, self.transactions, limit),
            ("late_labels", self.late_labels, self.labels, None),
        )
        return tuple(
            Finding(
                statistic=statistic,
                value=count / total,
                limit=1.0 if least is None else least,
                breached=least is not None and count / total >= least,
            )
            for statistic, count, total, least in shares
            if count
        )
