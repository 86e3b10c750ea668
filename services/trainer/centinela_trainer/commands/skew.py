"""``centinela skew``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from centinela.clock import SystemClock
from centinela.errors import CentinelaError
from centinela.process.start import load_settings
from centinela_trainer.commands.options import parse_as_of
from centinela_trainer.params import load_params
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.skew.check import SkewCheck
from centinela_trainer.skew.report import SkewReport, excess, save


def skew(
    as_of: Annotated[
        str | None,
        typer.Option(
            help="Newest event time looked at (ISO 8601; UTC where it names no zone); by default the archive's."
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Vectors of each origin; by default what params.yaml says.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the report there too, as JSON.")] = None,
) -> None:
    """Hold served features against the batch form. Exit code 1 where more differ than `skew.max_mismatch_rate`
    allows."""
    settings = load_settings(TrainerSettings)
    params = load_params(settings.params_path).skew.sampling(sample)
    report = SkewCheck(settings.archive_dir, params, settings.skew_path)(parse_as_of(as_of, SystemClock().now()))
    if report is None:
        raise CentinelaError(
            f"there is nothing to check: {settings.archive_dir} holds no verdict" + (f" up to {as_of}" if as_of else "")
        )
    if output is not None:
        save(report, output)
    Console().print(table(report))
    for example in report.examples:
        typer.echo(
            f"{example.transaction_id} ({example.origin}): {example.feature} was served as {example.served}, recomputed"
            f" {example.recomputed}"
        )
    for reason, count in report.not_judged.items():
        typer.echo(f"not judged: {count:,} ({reason})")
    typer.echo(f"skew: {report.sentence()}; report in {output or settings.skew_path}")
    if too_many := excess(report, params.max_mismatch_rate):
        typer.echo(f"above the limit: {too_many}", err=True)
        raise typer.Exit(1)


def table(report: SkewReport) -> Table:
    """A line per feature that differs somewhere, a column per origin; one line for all the others."""
    origins = sorted(report.judged)
    shown = Table(
        "feature",
        *(f"{origin} ({report.judged[origin]:,})" for origin in origins),
        "largest difference",
        box=None,
        padding=(0, 2),
    )
    by_feature: dict[str, dict[str, int]] = {}
    largest: dict[str, float | None] = {}
    for one in report.features:
        by_feature.setdefault(one.feature, {})[one.origin] = one.mismatches
        largest[one.feature] = max((v for v in (largest.get(one.feature), one.largest) if v is not None), default=None)
    differing = {name: counts for name, counts in by_feature.items() if any(counts.values())}
    for name, counts in differing.items():
        gap = largest[name]
        shown.add_row(
            name,
            *(
                f"{counts.get(origin, 0):,} ({counts.get(origin, 0) / max(report.judged[origin], 1):.2%})"
                for origin in origins
            ),
            "missing on one side" if gap is None else f"{gap:.6g}",
        )
    equal = len(by_feature) - len(differing)
    if equal:
        shown.add_row(f"{equal} {'other ' if differing else ''}features", *("0" for _ in origins), "")
    return shown
