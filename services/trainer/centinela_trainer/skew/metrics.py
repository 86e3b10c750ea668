"""The newest skew report as metrics, whoever made it: a retrain's child, or ``centinela skew``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from centinela.errors import CentinelaError
from centinela_trainer.skew.report import load

_log = structlog.get_logger(__name__)


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
        rate = GaugeMetricFamily(
            "centinela_feature_skew_ratio",
            "Share of sampled served vectors whose feature differs from the batch form.",
            labels=["feature", "origin"],
        )
        for one in report.features:
            rate.add_metric([one.feature, one.origin], one.rate)
        yield rate
        rows = GaugeMetricFamily(
            "centinela_feature_skew_judged_rows", "Served vectors that the newest skew check judged.", labels=["origin"]
        )
        for origin, count in report.judged.items():
            rows.add_metric([origin], count)
        yield rows
        yield GaugeMetricFamily(
            "centinela_feature_skew_not_judged_rows",
            "Served vectors that the newest skew check could not judge.",
            value=sum(report.not_judged.values()),
        )
        yield GaugeMetricFamily(
            "centinela_feature_skew_as_of_timestamp_seconds",
            "Event time of the newest vector that the check looked at.",
            value=report.as_of.timestamp(),
        )
