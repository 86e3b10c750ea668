"""Settings of the role that pushes served vectors to Feast."""

from __future__ import annotations

from pathlib import Path

from pydantic import DirectoryPath, Field

from centinela.settings import Settings


class FeastSettings(Settings):
    """Role ``feast``."""

    feast_port: int = Field(8007, ge=0, le=65535, description="Port of the Feast role's /health, /ready and /metrics.")
    feast_repo: DirectoryPath = Field(
        Path("deploy/feast"),
        validate_default=True,
        description="Folder with the Feast definitions (`features.py`) and configurations.",
    )
    feast_redis: str | None = Field(
        None,
        description=(
            "Redis as Feast's online store, `host:port,option=value`; without it sqlite below the data directory."
        ),
    )
    feast_batch: int = Field(1_000, ge=100, le=10_000, description="Most verdicts pushed to Feast at once.")
    slot: str = Field(
        "0", pattern=r"^[a-z0-9-]{1,32}$", description="Name of this replica among its role; stable over restarts."
    )
