"""The display of what is ready and what is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class ReadinessDisplay:
    """On a terminal a table that lives while its context is open; elsewhere a line for each process as it becomes
    ready.

    Args:
        names: The processes, in order.
    """

    def __init__(self, console: Console, names: list[str]) -> None:
        self._console = console
        self._waiting: dict[str, str | None] = dict.fromkeys(names, "not started")
        self._spinner = Spinner("dots")
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=8, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> ReadinessDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, waiting: Mapping[str, str | None]) -> None:
        """Show what each process waits for; None is ready."""
        newly = [name for name, what in waiting.items() if what is None and self._waiting.get(name) is not None]
        self._waiting.update(waiting)
        if self._live is None:
            for name in newly:
                self._console.print(f"{name} is ready", highlight=False)

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, what in self._waiting.items():
            mark = Text("✓", "green") if what is None else self._spinner
            table.add_row(mark, Text(name, "bold"), Text("ready", "green") if what is None else Text(what, "dim"))
        return table
