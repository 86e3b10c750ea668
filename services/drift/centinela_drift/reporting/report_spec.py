"""What a readable report is about: written by the service, read by the child process that makes the report.

A module of its own, so that the service does not load pandas, which only the child needs.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from centinela.events import DriftReported


class ReportSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is about and where to look for its rows. ``recent``: flat counts, features x (bins + 1)."""

    report: DriftReported
    manifest: str
    archive: str
    served_since: datetime
    recent: list[int]
    html: str
    json: str
