"""``centinela backfill``: features of an archive or of files, as Parquet by day."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from centinela.clock import SystemClock
from centinela.commands.file_options import DecimalSign, Encoding, Separator
from centinela.datasets.mapping import SHIPPED
from centinela.datasets.options import FileOptions
from centinela.datasets.source import open_files
from centinela.errors import CentinelaError
from centinela.features.configured import layout_of
from centinela.features.currency import Rates
from centinela.features.layout import FeatureLayout
from centinela.features.rates_file import rates_of
from centinela.process.start import load_settings
from centinela.times import DAY_MS, LONGEST_DAYS, date_of_day
from centinela_trainer.backfill.features import SlabFeatures
from centinela_trainer.backfill.source import Slab, Staged, is_archive, open_archive, stage_files
from centinela_trainer.settings import TrainerSettings

INSTANT = pa.timestamp("ms", tz="UTC")


class DayFiles:
    """Writes rows that come in time order to ``day=YYYY-MM-DD/features.parquet`` under *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._day: date | None = None
        self._writer: pq.ParquetWriter | None = None
        self.days = 0

    def write(self, table: pa.Table) -> None:
        """Take the next rows; column ``occurred_at``."""
        days = table["occurred_at"].cast(pa.int64()).to_numpy() // DAY_MS
        bounds = np.flatnonzero(np.diff(days)) + 1
        for first, last in zip([0, *bounds], [*bounds, len(days)], strict=True):
            self._open(date_of_day(int(days[first])), table.schema).write_table(table.slice(first, last - first))

    def close(self) -> None:
        """Finish the last file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, day: date, schema: pa.Schema) -> pq.ParquetWriter:
        if self._writer is None or day != self._day:
            self.close()
            folder = self._root / f"day={day.isoformat()}"
            folder.mkdir(parents=True)
            self._day = day
            self._writer = pq.ParquetWriter(folder / "features.parquet", schema, compression="zstd")
            self.days += 1
        return self._writer


def rebuild(source: Staged, layout: FeatureLayout, out: Path, progress: Callable[[int], None]) -> int:
    """Write the features of *source* under the new folder *out*; returns how many days there are.

    Args:
        progress: Called with the number of rows written so far.
    """
    features, files, done = SlabFeatures(layout), DayFiles(out), 0
    try:
        for slab in source.slabs():
            files.write(_rows(slab, features.add(slab.transactions, slab.reports), layout))
            done += len(slab.transactions)
            progress(done)
    finally:
        files.close()
    return files.days


def backfill(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="An archive, a CSV (also compressed) or Parquet file, or a folder of them."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist, or be empty.")],
    mapping: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(SHIPPED)}, or the path of a mapping; found by the column names if not given."),
    ] = None,
    separator: Separator = None,
    decimal: DecimalSign = None,
    encoding: Encoding = None,
    label_delay_days: Annotated[
        float, typer.Option(min=0, max=LONGEST_DAYS, help="Days between a transaction of a file and the report on it.")
    ] = 7.0,
) -> None:
    """Compute features as the stream would have served them, over an archive or any file: Parquet by day.

    The features are those of the settings `attributes` and `features_file`, as far as IN has their columns.
    Amounts of a file are converted by `base_currency` and `rates_file`.
    """
    settings = load_settings(TrainerSettings)
    configured, rates = layout_of(settings), rates_of(settings)
    if not source.exists():
        raise CentinelaError(f"{source} does not exist")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CentinelaError(f"{out} exists already: name a new folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with _bars() as bar:
            options = FileOptions.of(separator, decimal, encoding)
            staged = _staged(source, mapping, options, timedelta(days=label_delay_days), rates, work, bar)
            layout = fitting(configured, staged.attributes)
            days = rebuild(staged, layout, work / "out", bar("features", staged.rows))
        if out.exists():
            out.rmdir()
        (work / "out").rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    repeated = f", {staged.repeated:,} repeated rows left out" if staged.repeated else ""
    typer.echo(f"{staged.rows:,} transactions over {days:,} days, {len(layout.names)} features each{repeated}: {out}")


def fitting(layout: FeatureLayout, attributes: tuple[str, ...]) -> FeatureLayout:
    """*layout* with those of its attributes that exist.

    Raises:
        CentinelaError: A feature needs a column that does not exist.
    """
    try:
        return FeatureLayout(tuple(name for name in layout.attributes if name in attributes), layout.extra)
    except ValueError as error:
        raise CentinelaError(f"{error}; there are: {', '.join(attributes) or 'none'}") from error


def _staged(
    source: Path,
    mapping: str | None,
    options: FileOptions,
    label_delay: timedelta,
    rates: Rates,
    work: Path,
    bar: Callable[[str, int], Callable[[int], None]],
) -> Staged:
    if is_archive(source):
        if mapping is not None or options != FileOptions():
            raise CentinelaError(f"{source} is an archive, which needs no --mapping and no options for files")
        return open_archive(source, work)
    files = open_files(source, mapping, options, base_currency=rates.base)
    return stage_files(
        files,
        label_delay,
        rates,
        work,
        SystemClock().now(),
        bar("reading", files.rows),
        lambda line: typer.echo(line, err=True),
    )


def _rows(slab: Slab, matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]], layout: FeatureLayout) -> pa.Table:
    """What is written: ids, time, the last report (null where there is none), and the features."""
    transactions = slab.transactions
    last = (
        slab.reports.sort_values("reported_ms", kind="stable")
        .drop_duplicates("transaction_id", keep="last")
        .set_index("transaction_id")
    )
    known = last.reindex(transactions["transaction_id"])
    columns = {
        name: pa.array(transactions[name], pa.string(), from_pandas=True)
        for name in ("transaction_id", "user_id", "terminal_id")
    }
    columns["occurred_at"] = pa.array(transactions["occurred_ms"].to_numpy(), pa.int64()).cast(INSTANT)
    columns["is_fraud"] = pa.array(
        known["is_fraud"].astype(object).where(known["reported_ms"].notna(), None).tolist(), pa.bool_()
    )
    columns["reported_at"] = pa.array(known["reported_ms"].astype(pd.Int64Dtype()), pa.int64()).cast(INSTANT)
    return pa.table(columns | {name: pa.array(matrix[:, at]) for at, name in enumerate(layout.names)})


@contextmanager
def _bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Progress bars, by title and total; none where standard error is not a terminal."""
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:

        def bar(title: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(title, total=total)
            return lambda done: progress.update(task, completed=done)

        yield bar
