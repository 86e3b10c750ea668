"""What Feast serves: the window features of each verdict, by cardholder and by terminal.

Feast computes nothing here. A row is the served vector of a transaction: online as ``python -m centinela_predictor
feast`` pushes it, offline as it is in the archive, one Parquet column per feature under its name in the vector;
``field_mapping`` renames. To serve another feature of the vector, add a line here; it is pushed too.
"""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64

VERDICTS = "archive/predictions/*/*.parquet"
"""Below the offline store's ``root``."""

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="A cardholder.")
terminal = Entity(
    name="terminal", join_keys=["terminal_id"], value_type=ValueType.STRING, description="A point of sale."
)

user_archive = FileSource(
    name="user_archive",
    path=VERDICTS,
    file_format=ParquetFormat(),
    timestamp_field="occurred_at",
    created_timestamp_column="scored_at",
    field_mapping={
        "user_mean_30d": "avg_transaction_amount",
        "user_count_7d": "transaction_count_7d",
        "user_max_30d": "max_transaction_amount",
    },
)
user_push = PushSource(name="user_push", batch_source=user_archive)

user_transaction_features = FeatureView(
    name="user_transaction_features",
    description="A cardholder's spending as of the latest transaction, that one included.",
    entities=[user],
    ttl=timedelta(days=1),
    schema=[
        Field(
            name="avg_transaction_amount",
            dtype=Float64,
            description="Mean amount over 30 days (user_mean_30d), major units.",
        ),
        Field(name="transaction_count_7d", dtype=Float64, description="Transactions within 7 days (user_count_7d)."),
        Field(
            name="max_transaction_amount",
            dtype=Float64,
            description="Greatest amount within 30 days (user_max_30d), major units.",
        ),
    ],
    source=user_push,
)

terminal_archive = FileSource(
    name="terminal_archive",
    path=VERDICTS,
    file_format=ParquetFormat(),
    timestamp_field="occurred_at",
    created_timestamp_column="scored_at",
)
terminal_push = PushSource(name="terminal_push", batch_source=terminal_archive)

terminal_risk_features = FeatureView(
    name="terminal_risk_features",
    description="A terminal's traffic and known frauds in windows that end 7 days before its latest transaction.",
    entities=[terminal],
    ttl=timedelta(days=1),
    schema=[
        Field(name=f"terminal_{statistic}_{window}", dtype=Float64, description=f"{meaning} in the {window} window.")
        for window in ("1d", "7d", "30d")
        for statistic, meaning in (("count", "Transactions"), ("risk", "Share of transactions known as fraud"))
    ],
    source=terminal_push,
)

fraud_detection = FeatureService(name="fraud_detection", features=[user_transaction_features, terminal_risk_features])
