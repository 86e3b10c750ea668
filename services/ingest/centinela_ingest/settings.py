"""Settings of the ingest service, in addition to those of every process."""

from __future__ import annotations

from pydantic import Field

from centinela.settings import Settings


class IngestSettings(Settings):
    """Settings of the HTTP side of ingest."""

    ingest_port: int = Field(8000, ge=0, le=65_535, description="Port of the ingest API.")
    ingest_max_batch: int = Field(1_000, ge=1, description="Most transactions or labels in one request.")
    ingest_max_body_bytes: int = Field(1_000_000, ge=1, description="Largest body of a request.")
    ingest_deadline_s: float = Field(
        5.0,
        gt=0,
        description=(
            "Longest time of a request, its body's arrival included; a client may ask for less with"
            " `X-Request-Timeout-Ms`."
        ),
    )
    ingest_in_flight: int = Field(
        64, ge=1, description="Most requests in flight at once; the next one is answered 429."
    )
    ingest_drain_s: float = Field(
        9.0, gt=0, description="Longest time from SIGTERM to the end; requests in flight have two thirds of it."
    )
    ingest_retry_after_s: int = Field(2, ge=1, description="Seconds that a 503 asks the client to wait.")
