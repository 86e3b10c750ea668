"""``centinela simulate``: days of the simulator through Kafka, on the path that ``replay`` takes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

import typer

from centinela.clock import SystemClock
from centinela.codec import EARLIEST, FUTURE_TOLERANCE
from centinela.datasets.simulator import Drift, Profile, Simulation, parse_drift
from centinela.kafka.headers import event_source
from centinela_ingest.bulk.bulk_producer import BulkOptions, BulkProducer
from centinela_ingest.bulk.console import parse_number, send_run


def simulate_days(simulation: Simulation, bulk: BulkProducer, *, days: int, first_day: int = 0) -> bool:
    """Send *days* days from *first_day* on, and at the end the remaining labels. False where the run was stopped
    before.

    Raises:
        DeliveryIncomplete: Kafka did not acknowledge everything.
    """
    running = all(bulk.send_day(frame) for frame in simulation.days(days, first_day))
    bulk.finish()
    return running


def simulate(
    days: Annotated[int, typer.Option(min=1, help="Days to send.")],
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal streams.")] = 0,
    customers: Annotated[int, typer.Option(min=1, help="Each makes about two transactions a day.")] = 5_000,
    terminals: Annotated[int, typer.Option(min=1, help="Spread over the same grid as the customers.")] = 10_000,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME@DAY",
            help="Drift: card_testing, covariate or season, as NAME@START[-END][:STRENGTH] in days. May be repeated.",
        ),
    ] = None,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Date of day 0.")] = datetime(2025, 1, 1),  # noqa: DTZ001
    first_day: Annotated[int, typer.Option(min=0, help="Day to begin with; days do not depend on those before.")] = 0,
    rate: Annotated[str | None, typer.Option(metavar="N/s", help="Transactions a second at most.")] = None,
    speedup: Annotated[
        str | None, typer.Option(metavar="X", help="Keep the distances of event time, X times as fast.")
    ] = None,
    history: Annotated[
        bool,
        typer.Option(
            "--history",
            help="Load as labelled history: feeds features and training data, needs no model, gets no score.",
        ),
    ] = False,
    labels: Annotated[bool, typer.Option(help="Send the reports of fraud, about a week after the transaction.")] = True,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds that Kafka may take nothing before the run is given up.")
    ] = 60.0,
) -> None:
    """Send days of simulated transactions through Kafka: same seed, same stream."""
    pace, speed = parse_number(rate, "/s", "--rate"), parse_number(speedup, "x", "--speedup")
    require_past(start.date(), first_day + days, SystemClock().now())
    profile = Profile(
        seed=seed, customers=customers, terminals=terminals, start=start.date(), drifts=_drifts(scenario or [])
    )
    send_run(
        f"day {first_day} to {first_day + days - 1}",
        None,
        lambda bulk: simulate_days(Simulation(profile), bulk, days=days, first_day=first_day),
        BulkOptions(
            source=event_source("ingest", "simulator"),
            history=history,
            labels=labels,
            rate=pace,
            speedup=speed,
            patience_s=patience,
        ),
    )


def _drifts(texts: list[str]) -> tuple[Drift, ...]:
    try:
        return tuple(parse_drift(text) for text in texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--scenario") from error


def require_past(start: date, days: int, now: datetime) -> None:
    """Refuse days that end more than a day after *now*, or start before 1970.

    Raises:
        typer.BadParameter: Says on which date the days could start.
    """
    earliest, longest = EARLIEST.date(), (now - EARLIEST).days
    if days > longest:
        raise typer.BadParameter(f"at most {longest} days lie between 1970 and now", param_hint="--days")
    latest = (now - timedelta(days=days)).date()
    if start < earliest:
        raise typer.BadParameter(
            f"{start} is before 1970, where the stream refuses it; start on {earliest} or later", param_hint="--start"
        )
    if datetime.combine(start, time(), UTC) > now + FUTURE_TOLERANCE - timedelta(days=days):
        raise typer.BadParameter(
            f"day {days - 1} lies in the future, where the stream refuses it; start on {latest} or before",
            param_hint="--start",
        )
