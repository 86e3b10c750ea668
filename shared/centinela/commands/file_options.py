"""The options by which ``replay`` and ``backfill`` are told how a CSV file is written."""

from __future__ import annotations

from typing import Annotated

import typer

Separator = Annotated[
    str | None, typer.Option(metavar="CHAR", help="Between the columns of a CSV, or tab; recognised if not given.")
]
DecimalSign = Annotated[
    str | None, typer.Option(metavar="CHAR", help="Decimal sign, . or , (recognised by the first rows).")
]
Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a CSV, such as cp1252. UTF-8 and UTF-16 are recognised.")
]
