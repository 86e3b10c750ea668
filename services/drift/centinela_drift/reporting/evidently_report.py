"""The readable report of an alarm, by Evidently, in its own process.

``python -m centinela_drift.reporting.evidently_report SPEC``.
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

import msgspec
from evidently import Dataset, Report
from evidently.presets import DataDriftPreset, DataSummaryPreset

from centinela_drift.reporting.report_rows import samples
from centinela_drift.reporting.report_spec import ReportSpec

METHOD = "wasserstein"


def make(spec: ReportSpec) -> None:
    """Write the report of *spec* as HTML and JSON, each to a temporary file that is then renamed."""
    rows = samples(spec)
    usable = [name for name in rows.reference if rows.reference[name].notna().any() and rows.recent[name].notna().any()]
    snapshot = Report([DataDriftPreset(num_method=METHOD), DataSummaryPreset()]).run(
        Dataset.from_pandas(rows.recent[usable]),
        Dataset.from_pandas(rows.reference[usable]),
    )
    page, data = Path(spec.html), Path(spec.json)
    page_part = page.with_suffix(".html.tmp")
    snapshot.save_html(str(page_part))
    text = page_part.read_text(encoding="utf-8")
    page_part.write_text(text.replace("<body>", "<body>" + heading(spec, rows.source), 1), encoding="utf-8")
    body = {"centinela": msgspec.to_builtins(spec.report), "source": rows.source, "evidently": snapshot.dict()}
    data_part = data.with_suffix(".json.tmp")
    data_part.write_text(json.dumps(body, default=str), encoding="utf-8")
    data_part.replace(data)
    page_part.replace(page)


def heading(spec: ReportSpec, source: str) -> str:
    """Centinela's decision and its findings: Evidently's statistics decide nothing."""
    report = spec.report
    findings = "".join(
        f"<tr><td>{html.escape(f.statistic)}</td><td>{html.escape(f.feature or '')}</td>"
        f"<td>{f.value:.4f}</td><td>{f.limit:.4f}</td></tr>"
        for f in report.findings
        if f.breached
    )
    return (
        '<section style="font-family:sans-serif;margin:2em">'
        f"<h1>Drift of {html.escape(report.model_name)} version {html.escape(report.model_version)}:"
        f" {report.state}</h1>"
        f"<p>{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M} UTC, {report.count} transactions. "
        f"Retrain: {report.retrain}. {html.escape(report.reason)}</p>"
        f"<table><tr><th>statistic</th><th>feature</th><th>value</th><th>limit</th></tr>{findings}</table>"
        f"<p>{html.escape(source)} What follows is Evidently's view of these rows; it takes no part in the"
        " decision.</p></section>"
    )


if __name__ == "__main__":
    make(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ReportSpec))
