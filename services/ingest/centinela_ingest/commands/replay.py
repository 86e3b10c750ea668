"""``centinela replay``: a file of transactions through Kafka, with its labels when their time has come."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from centinela.clock import SystemClock
from centinela.datasets.files import TableFile, open_table
from centinela.datasets.mapping import Mapping, detect, load_mapping
from centinela.datasets.rows import LabelRule, to_transactions
from centinela.kafka.headers import event_source
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_ingest.bulk.console import parse_number, send_run

_SHOWN_REJECTS = 5


def replay_table(
    table: TableFile,
    mapping: Mapping,
    bulk: BulkProducer,
    *,
    labels: LabelRule,
    now: datetime,
    limit: int | None = None,
    echo_rejects: bool = True,
) -> bool:
    """Send the rows of *table*, and at the end the remaining labels.

    Args:
        now: Times more than a day later are refused.
        limit: Most rows read.

    Returns:
        False where the run was stopped before the end.

    Raises:
        UnreadableFile: The file ends early.
        DeliveryIncomplete: Kafka did not acknowledge everything.
    """
    rows_left = limit
    running = True
    for batch in table.batches(mapping.required):
        if not running or rows_left == 0:
            break
        if rows_left is not None:
            batch = batch.head(rows_left)
            rows_left -= len(batch.numbers) + len(batch.malformed)
        transactions, rejects = to_transactions(batch, mapping, labels, now)
        for reject in rejects[: max(0, _SHOWN_REJECTS - bulk.counters.rejected)] if echo_rejects else ():
            typer.echo(f"row {reject.row} rejected: {reject.reason}: {reject.detail}", err=True)
        bulk.reject(rejects)
        running = bulk.send(transactions)
    bulk.finish()
    return running


def replay(
    file: Annotated[Path, typer.Argument(help="CSV (also gzipped) or Parquet.")],
    mapping: Annotated[
        str | None,
        typer.Option(
            help="ulb, handbook, or the path of a mapping of your own; found by the column names if not given."
        ),
    ] = None,
    rate: Annotated[str | None, typer.Option(metavar="N/s", help="Transactions a second at most.")] = None,
    speedup: Annotated[
        str | None, typer.Option(metavar="X", help="Keep the distances of event time, X times as fast.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows read at most.")] = None,
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
    label_delay_days: Annotated[float, typer.Option(min=0, help="Days between a transaction and its label.")] = 7.0,
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
    """Send a file of transactions through Kafka, in its order, with its labels once their time has come.

    Rows that are not transactions go to the dead letters with the row's number and the reason. Sent twice, a file has
    the same transaction ids, and the stream answers each once.
    """
    pace, speed = parse_number(rate, "/s", "--rate"), parse_number(speedup, "x", "--speedup")
    table = open_table(file)
    if mapping is None:
        name, chosen = detect(table.columns, str(file))
        typer.echo(f"{file.name}: {name} layout, {table.rows:,} rows", err=True)
    else:
        chosen = load_mapping(mapping)
        chosen.require(table.columns, str(file))
    if id_prefix is not None:
        chosen = chosen.with_prefix(id_prefix)
    now = SystemClock().now()
    rule = LabelRule(timedelta(days=label_delay_days) if labels else None, genuine_labels)
    send_run(
        file.name,
        min(table.rows, limit or table.rows),
        lambda bulk: replay_table(table, chosen, bulk, labels=rule, now=now, limit=limit),
        BulkOptions(
            source=event_source("ingest", f"replay/{file.name}"),
            history=history,
            labels=labels,
            rate=pace,
            speedup=speed,
            patience_s=patience,
        ),
    )
