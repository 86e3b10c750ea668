"""What the demo shows while it runs, and at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from centinela_local.demo.story import Moment, Story
from centinela_local.demo.summary import Summary

_PLAIN_EVERY_S = 10.0
_WIDE = 120
_STATE_STYLE = {"stable": "green", "warning": "yellow", "alarm": "bold red"}


@dataclass
class Figures:
    """The live figures."""

    phase: str
    event_time: datetime | None = None
    processed: float = 0.0
    per_s: float = 0.0
    fraud_rate: float | None = None
    version: str | None = None
    lag: float = 0.0
    requests: int = 0
    failed_requests: int = 0


@dataclass
class LiveView:
    """On a terminal a panel that lives while its context is open; elsewhere one line every ten seconds. Moments stay
    either way."""

    console: Console
    story: Story
    figures: Figures = field(default_factory=lambda: Figures("starting"))
    _live: Live | None = None
    _told: int = 0
    _plain_at: float = 0.0

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.refresh()
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Print the moments that are new, and without a terminal the figures now and then."""
        for moment in self.story.moments[self._told :]:
            self.console.print(moment_line(moment), soft_wrap=self._live is None)
        self._told = len(self.story.moments)
        if self._live is None and time.monotonic() - self._plain_at > _PLAIN_EVERY_S:
            self._plain_at = time.monotonic()
            self.console.print(Text("  ".join(f"{label} {value}" for label, value, _ in self._cells())), soft_wrap=True)

    def _cells(self) -> list[tuple[str, str, str]]:
        f, story = self.figures, self.story
        precision = f"{story.measurements[-1].value:.2f}" if story.measurements else "no mature labels yet"
        return [
            ("phase", f.phase, "bold"),
            ("event time", f"{f.event_time:%Y-%m-%d %H:%M}" if f.event_time else "-", "cyan"),
            ("processed", f"{f.processed:,.0f} ({f.per_s:,.0f}/s)", ""),
            ("lag", f"{f.lag:,.0f}", ""),
            ("fraud rate", f"{f.fraud_rate:.2%}" if f.fraud_rate is not None else "-", ""),
            ("model version", f.version or "none", "green"),
            ("drift", story.drift_state, _STATE_STYLE.get(story.drift_state, "")),
            ("average precision", precision, ""),
            ("gateway requests", f"{f.requests:,}, {f.failed_requests} failed", "red" if f.failed_requests else ""),
        ]

    def _render(self) -> Panel:
        grid = Table.grid(padding=(0, 3))
        across = 3 if self.console.width >= _WIDE else 2
        for _ in range(across):
            grid.add_column(ratio=1)
        cells = [Text.assemble((f"{label}  ", "dim"), (value, style)) for label, value, style in self._cells()]
        for at in range(0, len(cells), across):
            grid.add_row(*cells[at : at + across])
        return Panel(grid, title="Centinela", title_align="left", border_style="blue")


def moment_line(moment: Moment) -> Text:
    """One line: wall time, event time, what happened."""
    event_time = f"{moment.event_time:%Y-%m-%d %H:%M}" if moment.event_time else " " * 16
    return Text.assemble(
        (f"{moment.wall.astimezone():%H:%M:%S}  ", "dim"),
        (f"{event_time}  ", "cyan"),
        (moment.what, "bold"),
        f"  {moment.detail}",
    )


def summary_view(summary: Summary, places: list[tuple[str, str]]) -> Group:
    """The table at the end, the places to look at, and the verdict."""
    table = Table(title="Summary", title_justify="left", show_header=False, box=None, padding=(0, 2))
    for label, value in summary.rows():
        table.add_row(label, Text(value, "bold"))
    where = Table.grid(padding=(0, 2))
    for label, value in places:
        where.add_row(Text(label, "dim"), Text(value, "cyan", overflow="fold"))
    verdict = (
        Text("The loop closed.", "bold green")
        if summary.closed
        else Text("The loop did not close:\n" + "\n".join(f"- {s}" for s in summary.shortfalls), "bold red")
    )
    return Group(Text(), table, Text(), where, Text(), verdict)
