"""Says which fields of accepted transactions nobody knows: a producer that misspells one loses it otherwise unseen."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from centinela.telemetry.metrics import UNKNOWN_FIELDS

_MOST_NAMED = 100
_LONGEST_NAME = 60
_log = structlog.get_logger(__name__)


class UnknownFieldReport:
    """Counts such fields, and logs each name once, up to ``_MOST_NAMED`` of them."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def report(self, names: Sequence[str]) -> None:
        """Take the *names* of a batch, one for each occurrence."""
        if not names:
            return
        UNKNOWN_FIELDS.labels("stream").inc(len(names))
        for name in dict.fromkeys(name[:_LONGEST_NAME] for name in names):
            if name not in self._named and len(self._named) < _MOST_NAMED:
                self._named.add(name)
                _log.warning("transaction.unknown_field", field=name)
