"""Settings of the predictor, in both roles."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from centinela.settings import Settings
from centinela_predictor.state.misrouted import OnMisrouted


class PredictorSettings(Settings):
    """Stream and gateway: where they listen, which models they serve, what they keep."""

    gateway_port: int = Field(8001, ge=0, le=65535, description="Port of the gateway (0: any free one).")
    predictor_port: int = Field(8002, ge=0, le=65535, description="Port of the stream's /health, /ready and /metrics.")
    slot: str = Field(
        "0", pattern=r"^[a-z0-9-]{1,32}$", description="Name of this replica among its role; stable over restarts."
    )
    ab_share: float = Field(
        0.0, ge=0, le=1, description="Share of users whom the challenger scores, where one is loaded."
    )
    ab_salt: str = Field(
        "champion-challenger",
        min_length=1,
        max_length=64,
        description="Names the A/B experiment; another salt, another split.",
    )
    dedupe_ids: int = Field(
        1_000_000,
        ge=1,
        description="Transaction ids remembered per partition, at least: a copy among them gets no second verdict.",
    )
    registry_retry_s: float = Field(
        1.0, gt=0, description="First pause before a failed model download is tried again; doubles up to 30 s."
    )
    stream_unknown_fields: Literal["refuse", "report"] = Field(
        "report",
        description=(
            "What becomes of a record of `transactions` with a field that nobody knows: a dead letter, or a verdict, a"
            " count and a line in the log. The same for stream and gateway."
        ),
    )
    gateway_deadline_s: float = Field(
        5.0,
        gt=0,
        description=(
            "Longest time of a gateway request, its body's arrival included; a client may ask for less by"
            " `X-Request-Timeout-Ms`."
        ),
    )
    gateway_in_flight: int = Field(
        1_000, ge=1, description="Gateway requests in flight at once at most; the next one is answered 429."
    )
    gateway_outbox_after_s: float = Field(
        0.5,
        gt=0,
        description=(
            "A verdict that Kafka has not acknowledged for this long goes to the gateway's outbox, and is answered"
            " then."
        ),
    )
    gateway_outbox_records: int = Field(
        100_000,
        ge=1,
        description="Verdicts in the outbox at most; past it, while Kafka is unavailable, new transactions get 503.",
    )
    gateway_outbox_bytes: int = Field(256_000_000, ge=1_000_000, description="Their size at most.")
    gateway_verdicts: int = Field(
        100_000, ge=1, description="Verdicts the gateway remembers, so that a retry gets the first one."
    )
    misrouted: OnMisrouted = Field(
        "count",
        description=(
            "What becomes of a transaction in another partition than its user's, which is murmur2 of the user id:"
            " `count` scores it without the user's other transactions, and counts and logs it; `refuse` makes it a dead"
            " letter (`wrong_partition`). The same for stream and gateway."
        ),
    )
    stream_batch: int = Field(
        2_000, ge=1, le=20_000, description="Most transactions in one Kafka transaction of the stream."
    )
    snapshot_interval_s: float = Field(
        30.0, gt=0, description="Time between snapshots of feature state; a restart replays what came since."
    )
    snapshot_url: str | None = Field(
        None,
        description=(
            "Shared storage that snapshots of feature state are sent to as well, off the hot path"
            " (`s3://bucket/prefix`, `file:///mnt/state`): a predictor on another machine then starts from them."
        ),
    )
    idle_after_s: float = Field(
        1.0, gt=0, description="A partition without transactions for this long holds up no other in event time."
    )
    gate_patience_s: float = Field(
        30.0, gt=0, description="Longest wait of a transaction for partitions over 5 days behind in event time."
    )
    drain_timeout_s: float = Field(
        9.0,
        gt=0,
        description="Longest time from SIGTERM to the end; requests in flight at the gateway have two thirds of it.",
    )

    @property
    def state_dir(self) -> Path:
        """Where the stream keeps snapshots of feature state."""
        return self.data_dir / "state"

    @property
    def outbox_file(self) -> Path:
        """Where this gateway keeps verdicts that Kafka does not have yet."""
        return self.data_dir / "outbox" / f"gateway-{self.slot}.sqlite"

    @property
    def models_dir(self) -> Path:
        """Where served bundles are kept: ``<version>/`` and the links ``current`` and ``challenger``."""
        return self.data_dir / "models"
