"""The newest skew report as metrics, whoever made it: a retrain's child, or ``centinela skew``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from centinela.errors import CentinelaError
from centinela.telemetry.metrics import GaugeFamily
from centinela_trainer.skew.report import load

_log = structlog.get_logger(__name__)
EXPORTED_BY = ("trainer",)
SKEW_RATIO = GaugeFamily(
    "centinela_feature_skew_ratio",
    "Share of sampled served vectors whose feature differs from the batch form.",
    ("feature", "origin"),
)
JUDGED_ROWS = GaugeFamily(
    "centinela_feature_skew_judged_rows", "Served vectors that the newest skew check judged.", ("origin",)
)
NOT_JUDGED_ROWS = GaugeFamily(
    "centinela_feature_skew_not_judged_rows", "Served vectors that the newest skew check could not judge."
)
AS_OF = GaugeFamily(
    "centinela_feature_skew_as_of_timestamp_seconds", "Event time of the newest vector that the check looked at."
)


class SkewCollector(Collector):
    """Reads the report at *path* whenever metrics are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        try:
            report = load(self._path)
        except CentinelaError as error:
            _log.warning("skew_report.unreadable", detail=str(error))
            return
        if report is None:
            return
        ratio = SKEW_RATIO.empty()
        for one in report.features:
            ratio.add_metric([one.feature, one.origin], one.rate)
        yield ratio
        judged = JUDGED_ROWS.empty()
        for origin, count in report.judged.items():
            judged.add_metric([origin], count)
        yield judged
        not_judged = NOT_JUDGED_ROWS.empty()
        not_judged.add_metric([], sum(report.not_judged.values()))
        yield not_judged
        as_of = AS_OF.empty()
        as_of.add_metric([], report.as_of.timestamp())
        yield as_of
