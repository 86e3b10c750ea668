"""How the tables of files read: through the code of ``replay``, ``backfill`` and the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from centinela.datasets.options import FileOptions
from centinela.datasets.rows import LabelRule
from centinela.datasets.source import open_files
from centinela.times import from_ms

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAIN = "columns: {at: occurred_at, amount: amount, user: user_id}\nid_prefix: f-\n"


@dataclass(frozen=True)
class Read:
    """Rows as ``id time user amount``, and the rejected ones as row number and detail."""

    rows: list[str]
    rejects: list[tuple[int, str]]
    attributes: list[list[float]]
    currencies: list[str]


def read(path: Path, mapping: str | None, options: FileOptions | None = None, limit: int | None = None) -> Read:
    """All of *path* by the YAML *mapping*, or by a shipped one that fits."""
    chosen = None
    if mapping is not None:
        chosen = str(path.with_name("mapping.yaml"))
        Path(chosen).write_text(mapping)
    files = open_files(path, chosen, options)
    rows: list[str] = []
    rejects: list[tuple[int, str]] = []
    attributes: list[list[float]] = []
    currencies: list[str] = []
    for part in files.parts(LabelRule(), NOW, limit):
        found = part.transactions
        attributes += found.attributes.tolist()
        currencies += found.currency.tolist()
        rejects += [(reject.row, reject.detail) for reject in part.rejects]
        rows += [
            f"{one} {from_ms(ms):%Y-%m-%dT%H:%M:%S.%fZ} {user} {amount:g}".replace(".000000Z", "Z")
            for one, ms, user, amount in zip(
                found.transaction_id, found.occurred_ms.tolist(), found.user_id, found.amount, strict=True
            )
        ]
    return Read(rows, sorted(rejects), attributes, currencies)
