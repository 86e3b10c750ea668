"""Settings that every process shares. A service's ``settings.py`` extends this class with its own fields.

Each field is read from the environment as ``CENTINELA_<FIELD>``; ``docs/settings.md`` is generated from these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from centinela.events import DEFAULT_CURRENCY
from centinela.liveness.progress import Patience
from centinela.times import LONGEST_DAYS


class Settings(BaseSettings):
    """Where the dependencies are, and how the process logs and answers."""

    model_config = SettingsConfigDict(
        env_prefix="CENTINELA_", extra="ignore", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092",
        validation_alias=AliasChoices("CENTINELA_KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BOOTSTRAP_SERVERS"),
        description="Kafka brokers, host:port separated by commas.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        description="How to connect to the brokers: `SSL` encrypts, `SASL_` authenticates (`docs/security.md`).",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the password is checked, with a `SASL_` protocol."
    )
    kafka_sasl_username: str | None = Field(None, description="User name, with a `SASL_` protocol.")
    kafka_sasl_password: SecretStr | None = Field(None, description="Password of that user.")
    kafka_sasl_password_file: Path | None = Field(None, description="File with that password, instead of the value.")
    kafka_ssl_cafile: Path | None = Field(
        None,
        description="Certificate authorities (PEM) to trust, with `SSL` or `SASL_SSL`. The system's by default.",
    )
    kafka_ssl_certfile: Path | None = Field(
        None, description="This client's certificate (PEM), where brokers require one."
    )
    kafka_ssl_keyfile: Path | None = Field(None, description="The private key (PEM) of that certificate.")
    kafka_ssl_key_password: SecretStr | None = Field(None, description="The password of that key, if it has one.")
    kafka_ssl_check_hostname: bool = Field(True, description="Whether a broker's certificate must match its host name.")
    partitions: int = Field(4, ge=1, description="Partitions of the data topics that `centinela topics create` makes.")
    replication_factor: int = Field(1, ge=1, description="Replicas of each topic that `centinela topics create` makes.")
    mlflow_tracking_uri: str = Field(
        "http://127.0.0.1:5000",
        validation_alias=AliasChoices("CENTINELA_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
        description="MLflow tracking server and registry.",
    )
    model_name: str = Field("FraudDetector", description="Name of the registered model.")
    model_public_keys_file: Path | None = Field(
        None,
        description=(
            "File of public keys, one `name:ed25519.key` a line: only bundles that one of them signed are loaded"
            " (`docs/security.md`)."
        ),
    )
    model_public_keys: str | None = Field(
        None, description="The same keys as a value, separated by spaces, instead of a file."
    )
    experiment: str = Field("credit-card-fraud", description="Name of the MLflow experiment.")
    data_dir: Path = Field(Path(".local/data"), description="Folder for state, archive, served bundles and reports.")
    ops_host: str = Field(
        "127.0.0.1",
        description=(
            "Address that HTTP endpoints listen on. Beyond loopback it needs API keys, or `CENTINELA_INSECURE`."
        ),
    )
    api_keys_file: Path | None = Field(
        None,
        description=(
            "File of API keys, one `name:role:hash` a line, as `centinela keys new` prints it (`docs/security.md`)."
        ),
    )
    api_keys: SecretStr | None = Field(
        None, description="The same keys as a value, separated by spaces, instead of a file."
    )
    insecure: bool = Field(
        False,
        description="Listen beyond loopback without API keys: only where something else controls access.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is console on a terminal, JSON elsewhere."
    )
    log_salt: str = Field("centinela", description="Key of the hash under which user ids appear in logs. Set your own.")
    attributes: tuple[str, ...] = Field(
        tuple(f"v{n}" for n in range(1, 29)),
        description="Raw numeric columns of a transaction that become features (JSON list).",
    )
    base_currency: str = Field(
        DEFAULT_CURRENCY,
        pattern="^[A-Z]{3}$",
        description=(
            "Currency of all features: other amounts are converted to it (`docs/features.md`). The same for every"
            " process; another one needs new state and a new model."
        ),
    )
    rates_file: Path | None = Field(
        None,
        description=(
            "CSV file of exchange rates, `date,currency,rate`; without it only the base currency is accepted. The same"
            " for ingest, stream and gateway."
        ),
    )
    other_fields: tuple[str, ...] = Field(
        ("time",),
        description=(
            "Further numeric columns that a transaction may have (JSON list): they stay in the log and are no features."
        ),
    )
    unknown_fields: Literal["refuse", "report"] = Field(
        "refuse",
        description=(
            "What the gateway and ingest do with a field that is none of the event, `CENTINELA_ATTRIBUTES` and"
            " `CENTINELA_OTHER_FIELDS`: answer 422 with its name, or take the request and name it in the answer."
        ),
    )
    features_file: Path | None = Field(
        None,
        description="YAML file of further windowed features (`docs/features.md`); the same for stream and gateway."
        " `make up` and compose take the checkout's `features.yaml`.",
    )
    dead_letter_max_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description=(
            "A consumer stops, uncommitted, when more than this share of its last 1,000 records (at least 200) "
            "cannot be processed: the fault is then probably its own. With 1 it never stops."
        ),
    )
    label_maturity_days: float = Field(
        7.0,
        gt=0,
        le=LONGEST_DAYS,
        description="Days after which a transaction without a fraud label counts as genuine.",
    )
    watchdog_s: float = Field(
        120.0,
        gt=0,
        description=(
            "A consumer that makes no progress for this long, while records wait, is stuck: `/health` answers 503, and"
            " the stacks of all threads are logged. The time that it works on other records does not"
            " count. A producer whose commits fail for this long, although the brokers"
            " answer, ends its process."
        ),
    )
    watchdog_exit_s: float = Field(
        30.0,
        ge=0,
        description="A process that is stuck for this long ends (exit code 1), so that its supervisor restarts it.",
    )

    @property
    def patience(self) -> Patience:
        """How long a consumer may make no progress."""
        return Patience(self.watchdog_s, self.watchdog_exit_s)
