"""What ``model-events`` says about a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import structlog

from centinela.codec import ModelEventDecoder
from centinela.errors import InvalidRecord
from centinela.events import ModelPromoted
from centinela.kafka.port import Record

_log = structlog.get_logger(__name__)


class Promotions:
    """Finds the promotions of *model_name*; a record that cannot be read is logged and skipped."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._decoder = ModelEventDecoder()

    def among(self, records: Iterable[Record]) -> Iterator[ModelPromoted]:
        """Those in *records*, in their order."""
        for record in records:
            if record.value is None:
                continue
            try:
                event = self._decoder.decode(record.value)
            except InvalidRecord as error:
                _log.warning("model_event.refused", offset=record.offset, reason=error.reason, detail=error.detail)
                continue
            if isinstance(event, ModelPromoted) and event.model_name == self._model_name:
                yield event
