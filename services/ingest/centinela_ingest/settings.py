"""What the ingest service is set by, beside what every process shares."""

from __future__ import annotations

from pydantic import Field

from centinela.settings import Settings


class IngestSettings(Settings):
    """Settings of the HTTP side of ingest."""

    ingest_port: int = Field(8000, ge=0, le=65_535, description="Port of the ingest API.")
    ingest_max_batch: int = Field(1_000, ge=1, description="Transactions or labels in one request at most.")
    ingest_max_body_bytes: int = Field(1_000_000, ge=1, description="Size of a request's body at most.")
    ingest_deadline_s: float = Field(
        5.0,
        gt=0,
        description=(
            "Longest time of a request, its body's arrival included; a client may ask for less by"
            " `X-Request-Timeout-Ms`."
        ),
    )
    ingest_in_flight: int = Field(
        64, ge=1, description="Requests in flight at once at most; the next one is answered 429."
    )
    ingest_drain_s: float = Field(
        9.0, gt=0, description="Longest time from SIGTERM to the end; requests in flight have two thirds of it."
    )
    ingest_retry_after_s: int = Field(2, ge=1, description="Seconds that a 503 asks the client to wait.")
