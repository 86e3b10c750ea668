"""What ``replay`` and ``simulate`` share on the command line: progress, signals, the summary at the end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from centinela import topics
from centinela.clock import Clock, SystemClock
from centinela.errors import CentinelaError, DependencyUnavailable
from centinela.kafka import connect
from centinela.kafka.port import Consumer
from centinela.process.start import load_settings
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer, Counters
from centinela_ingest.settings import IngestSettings

INTERRUPTED = 130
_RETRY_S = 0.5


def await_topics(
    consumer: Consumer,
    names: Sequence[str],
    servers: str,
    clock: Clock,
    wait: Callable[[float], bool],
    patience_s: float,
) -> None:
    """Return once Kafka answers and has the topics *names*; says once what it waits for. Closes *consumer*.

    Args:
        wait: Waits that many seconds; returns True where the run should stop.

    Raises:
        DependencyUnavailable: Kafka did not answer for *patience_s*.
        CentinelaError: A topic does not exist.
    """
    deadline = clock.monotonic() + patience_s
    announced = False
    try:
        while True:
            try:
                missing = [name for name in names if not consumer.partitions_of(name)]
                break
            except DependencyUnavailable as error:
                if clock.monotonic() >= deadline or wait(_RETRY_S):
                    raise DependencyUnavailable(
                        f"nothing was sent: Kafka at {servers} does not answer", dependency="kafka"
                    ) from error
                if not announced:
                    typer.echo(f"waiting for Kafka at {servers}", err=True)
                    announced = True
        if missing:
            raise CentinelaError(f"Kafka at {servers} has no topic {', '.join(missing)}: run `centinela topics create`")
    finally:
        consumer.close()


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process as usual."""
    stop = threading.Event()

    def request(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Display:
    """A progress bar with the rate and the event time; silent where standard error is not a terminal."""

    def __init__(self, title: str, total: int | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>10,.0f}/s"),
            TextColumn("{task.fields[event_time]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task: TaskID = self._progress.add_task(title, total=total, rate=0.0, event_time="")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, counters: Counters) -> None:
        """Draw the state of a run."""
        done = counters.transactions + counters.rejected
        seconds = self.elapsed
        event_time = f"{counters.event_time:%Y-%m-%d %H:%M}" if counters.event_time else ""
        self._progress.update(
            self._task, completed=done, rate=done / seconds if seconds else 0.0, event_time=event_time
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._progress.tasks[0].elapsed or 0.0


def send_run(title: str, total: int | None, send: Callable[[BulkProducer], object], options: BulkOptions) -> None:
    """Let *send* write to Kafka as soon as it answers, with progress; print what was sent. Exit 130 where the run was
    interrupted.

    Args:
        title: Shown before the progress bar.
        total: Transactions to come, where that is known.

    Raises:
        DependencyUnavailable: Kafka did not answer for as long as the patience of *options*.
        CentinelaError: A topic does not exist, or Kafka did not acknowledge everything.
    """
    settings, clock = load_settings(IngestSettings), SystemClock()
    needed = (topics.TRANSACTIONS.name, topics.LABELS.name, topics.TRANSACTIONS.dlq)
    with stopping() as stop:
        await_topics(
            connect.consumer(settings, group=None),
            needed,
            settings.kafka_bootstrap_servers,
            clock,
            stop.wait,
            options.patience_s,
        )
        producer = connect.producer(settings, client="confluent", linger_ms=20)
        try:
            with Display(title, total) as display:
                options = replace(options, currency=settings.base_currency)
                bulk = BulkProducer(producer, options, stop=stop, clock=clock, on_progress=display.show)
                send(bulk)
                seconds = display.elapsed
            close_run(bulk, seconds, topics.TRANSACTIONS.dlq)
        finally:
            producer.close()


def close_run(bulk: BulkProducer, seconds: float, rejected_topic: str) -> None:
    """Print what was sent; exit 130 where the run was interrupted."""
    counters = bulk.counters
    parts = [f"{counters.transactions:,} transactions ({counters.frauds:,} frauds)", f"{counters.labels:,} labels"]
    if counters.rejected:
        parts.append(f"{counters.rejected:,} rejected rows in {rejected_topic}")
    if bulk.pending_labels:
        parts.append(f"{bulk.pending_labels:,} labels not yet due")
    rate = f" ({counters.transactions / seconds:,.0f}/s)" if seconds else ""
    typer.echo(f"sent and acknowledged: {', '.join(parts)} in {seconds:.1f} s{rate}")
    if bulk.stop.is_set():
        typer.echo("interrupted before the end", err=True)
        raise typer.Exit(INTERRUPTED)


def parse_number(text: str | None, suffix: str, option: str) -> float | None:
    """A number above 0 with an optional *suffix* (``500/s``, ``3600x``).

    Raises:
        typer.BadParameter: It is not.
    """
    if text is None:
        return None
    try:
        value = float(text.removesuffix(suffix).replace(",", "").replace("_", ""))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a number above 0", param_hint=option)
    return value
