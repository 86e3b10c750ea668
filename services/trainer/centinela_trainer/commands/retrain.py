"""``centinela retrain``: request a training."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console

from centinela import groups, topics
from centinela.clock import SystemClock
from centinela.codec import ModelEventDecoder
from centinela.consuming.table_reader import open_table
from centinela.errors import CentinelaError
from centinela.events import RetrainRequested, TrainingCompleted, encode
from centinela.kafka import connect
from centinela.kafka.headers import event_headers, event_source
from centinela.kafka.port import Outgoing
from centinela.process.start import load_settings
from centinela.telemetry.tracing import new_traceparent
from centinela_trainer.archive.reader import ArchiveReader
from centinela_trainer.commands.event_time import await_stream, event_time_reached
from centinela_trainer.commands.options import parse_as_of
from centinela_trainer.params import MODEL_KINDS
from centinela_trainer.settings import TrainerSettings

SEND_TIMEOUT_S = 15.0
STREAM_PATIENCE_S = 15.0
console = Console(stderr=True)


def request_for(model_name: str, as_of: datetime, reason: str, kind: str | None) -> RetrainRequested:
    """The request of an operator; the same wish at the same event time has the same id."""
    wish = "\x1f".join((model_name, as_of.astimezone(UTC).isoformat(), reason, kind or ""))
    return RetrainRequested(
        request_id=f"retrain-{hashlib.sha256(wish.encode()).hexdigest()[:16]}",
        model_name=model_name,
        requested_by="operator",
        as_of=as_of.astimezone(UTC),
        reason=reason,
        model_kind=kind,
    )


def publish(settings: TrainerSettings, request: RetrainRequested) -> None:
    """Append *request* to ``retrain-requests`` and wait until it is written."""
    producer = connect.producer(settings)
    try:
        producer.send(
            Outgoing(
                topics.RETRAIN_REQUESTS.name,
                encode(request),
                request.model_name.encode(),
                event_headers(
                    event_type="RetrainRequested",
                    event_id=request.request_id,
                    source=event_source("trainer", "cli"),
                    time=SystemClock().now(),
                    traceparent=new_traceparent(),
                ),
            )
        ).wait(SEND_TIMEOUT_S)
    finally:
        producer.close()


def await_answer(settings: TrainerSettings, request_id: str, timeout_s: float) -> TrainingCompleted | None:
    """The answer to *request_id* in ``model-events``; None where there is none within *timeout_s*."""
    decoder, table = ModelEventDecoder(), open_table(settings, [topics.MODEL_EVENTS.name])
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            for event in decoder.decode_many([record.value for record in table.poll(0.5)]):
                if isinstance(event, TrainingCompleted) and event.request_id == request_id:
                    return event
    finally:
        table.close()
    return None


def retrain(
    reason: Annotated[str, typer.Option(help="Why; it is kept with the model.")],
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Event time to train as of (ISO 8601; UTC where it names no zone); by default the newest sent."
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="hgb, rf or lr; by default what params.yaml says.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait, seconds.")] = 900.0,
) -> None:
    """Ask the trainer for a new model. With --wait, exit 1 unless the gate let it pass."""
    settings = load_settings(TrainerSettings)
    if kind is not None and kind not in MODEL_KINDS:
        raise CentinelaError(f"--kind {kind}: choose one of {', '.join(MODEL_KINDS)}")
    request = request_for(
        settings.model_name, parse_as_of(as_of, SystemClock().now()) or _reached(settings), reason, kind
    )
    publish(settings, request)
    console.print(f"[bold]{request.request_id}[/] as of {request.as_of.isoformat()}: requested")
    if not wait:
        typer.echo(request.request_id)
        return
    with console.status("training ..."):
        answer = await_answer(settings, request.request_id, timeout)
    if answer is None:
        raise CentinelaError(f"no answer to {request.request_id} within {timeout:g} s; is the trainer running?")
    version = f" version {answer.model_version}" if answer.model_version else ""
    console.print(f"[bold]{answer.outcome}[/]{version}: {answer.reason}")
    typer.echo(encode(answer).decode())
    if answer.outcome in ("refused", "failed"):
        raise typer.Exit(1)


def _reached(settings: TrainerSettings) -> datetime:
    """The event time that the log has reached, once the stream has read it; where the log is empty, that of the
    archive."""
    reader = connect.consumer(settings, group=groups.STREAM.name)
    try:
        with console.status("waiting until the stream has taken in what was sent ..."):
            left = await_stream(reader, STREAM_PATIENCE_S)
        reached = event_time_reached(
            reader, SystemClock().now(), lambda strays: console.print(f"{strays}: left out; --as-of sets another time")
        )
        newest = reached or ArchiveReader(settings.archive_dir).newest()
    finally:
        reader.close()
    if left:
        console.print(
            f"the stream has {left:,} transactions left and makes no progress; training proceeds without them"
        )
    if newest is None:
        raise CentinelaError("there are no transactions to train on yet: send some, or give --as-of")
    return newest
