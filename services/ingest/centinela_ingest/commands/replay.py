"""``centinela replay``: a file of transactions through Kafka, with its labels when their time has come."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from centinela.clock import SystemClock
from centinela.commands.file_options import DecimalSign, Encoding, Separator
from centinela.datasets.columns import Transactions
from centinela.datasets.mapping import SHIPPED
from centinela.datasets.options import FileOptions
from centinela.datasets.ordering import in_time_order
from centinela.datasets.rows import LabelRule
from centinela.datasets.source import DataFiles, Order, open_files
from centinela.kafka.headers import event_source
from centinela.process.start import load_settings
from centinela.times import LONGEST_DAYS
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_ingest.bulk.console import parse_number, send_run
from centinela_ingest.settings import IngestSettings

_SHOWN_REJECTS = 5


def replay_files(
    files: DataFiles,
    bulk: BulkProducer,
    *,
    labels: LabelRule,
    now: datetime,
    limit: int | None = None,
    sort: bool = False,
    echo_rejects: bool = True,
) -> bool:
    """Send the rows of *files*, and at the end the remaining labels.

    Args:
        now: Times more than a day later are refused.
        limit: Most rows read.
        sort: Send them in the order of time, not in that of the files.

    Returns:
        False where the run was stopped before the end.

    Raises:
        UnreadableFile: A file ends early.
        DeliveryIncomplete: Kafka did not acknowledge everything.
    """

    def good() -> Iterator[Transactions]:
        for part in files.parts(labels, now, limit):
            for reject in part.rejects[: max(0, _SHOWN_REJECTS - bulk.counters.rejected)] if echo_rejects else ():
                typer.echo(f"row {reject.row} rejected: {reject.reason}: {reject.detail}", err=True)
            bulk.reject(part.rejects, file=part.file.name if len(files.tables) > 1 else None)
            yield part.transactions
            if bulk.stop.is_set():
                return

    with tempfile.TemporaryDirectory(prefix="centinela-replay-") as work:
        rows = in_time_order(good(), Path(work)) if sort else good()
        running = all(bulk.send(transactions) for transactions in rows)
    bulk.finish()
    return running


def order_notice(order: Order, sort: bool) -> str | None:
    """What to say about rows that do not come in the order of time."""
    if not order.late:
        return None
    late = f"{order.late:,} of {order.rows:,} rows are earlier than a row before them"
    if sort:
        return f"{late}: all are sent in the order of time"
    return f"{late}: without --no-sort all are sent in order; as they are, windows miss what comes late"


def replay(
    file: Annotated[Path, typer.Argument(help="CSV (also compressed), Parquet, or a folder of them.")],
    mapping: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(SHIPPED)}, or the path of a mapping of your own; found by the column names if not given."
        ),
    ] = None,
    separator: Separator = None,
    decimal: DecimalSign = None,
    encoding: Encoding = None,
    rate: Annotated[str | None, typer.Option(metavar="N/s", help="Transactions a second at most.")] = None,
    speedup: Annotated[
        str | None, typer.Option(metavar="X", help="Keep the distances of event time, X times as fast.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows read at most.")] = None,
    sort: Annotated[
        bool, typer.Option(help="Send rows in the order of their time, whatever their order in the file.")
    ] = True,
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Load as labelled history: feeds features and training data, needs no model, gets no score.",
        ),
    ] = False,
    labels: Annotated[
        bool, typer.Option(help="Send labels after their delay in event time, those left at the end.")
    ] = True,
    label_delay_days: Annotated[
        float, typer.Option(min=0, max=LONGEST_DAYS, help="Days between a transaction and its label.")
    ] = 7.0,
    genuine_labels: Annotated[
        bool, typer.Option(help="Send labels of genuine transactions too, not only of frauds.")
    ] = False,
    id_prefix: Annotated[
        str | None, typer.Option(help="Goes before each transaction id; tells one file's rows from another's.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that Kafka may take nothing before the run is given up.")
    ] = 60.0,
) -> None:
    """Send a file of transactions through Kafka, in the order of time, with its labels once their time has come.

    Rows that are not transactions go to the dead letters with the row's number and the reason. Sent twice, a file has
    the same transaction ids, and the stream answers each once.
    """
    pace, speed = parse_number(rate, "/s", "--rate"), parse_number(speedup, "x", "--speedup")
    files = open_files(
        file,
        mapping,
        FileOptions.of(separator, decimal, encoding),
        id_prefix=id_prefix,
        base_currency=load_settings(IngestSettings).base_currency,
    )
    typer.echo(f"{file.name}: {files.layout} layout, about {files.rows:,} rows ({files.form})", err=True)
    order = files.order(limit)
    if line := order_notice(order, sort):
        typer.echo(line, err=True)
    now = SystemClock().now()
    rule = LabelRule(timedelta(days=label_delay_days) if labels else None, genuine_labels)
    send_run(
        file.name,
        min(files.rows, limit or files.rows),
        lambda bulk: replay_files(files, bulk, labels=rule, now=now, limit=limit, sort=sort and order.late > 0),
        BulkOptions(
            source=event_source("ingest", f"replay/{file.name}"),
            history=history,
            labels=labels,
            rate=pace,
            speedup=speed,
            patience_s=patience,
        ),
    )
