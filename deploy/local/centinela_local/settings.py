"""Settings of the local stack: where everything listens and keeps its files."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from centinela.settings import Settings


class LocalSettings(Settings):
    """``centinela up`` passes these on to every process it starts."""

    local_dir: Path = Field(
        Path(".local"),
        description="Folder of the local stack: run files, logs, Kafka's and MLflow's data, the demo's results.",
    )
    kafka_port: int = Field(9092, gt=0, le=65535, description="Port of the local broker.")
    kafka_controller_port: int = Field(9093, gt=0, le=65535, description="Port of the local broker's KRaft controller.")
    mlflow_port: int = Field(5000, gt=0, le=65535, description="Port of the local MLflow server.")
    ingest_port: int = Field(8000, gt=0, le=65535, description="Port of the ingest API.")
    gateway_port: int = Field(8001, gt=0, le=65535, description="Port of the gateway.")
    predictor_port: int = Field(
        8002, gt=0, le=65535, description="Port of the stream predictor's /health, /ready and /metrics."
    )
    drift_port: int = Field(8003, gt=0, le=65535, description="Port of drift's /health, /ready and /metrics.")
    trainer_port: int = Field(8004, gt=0, le=65535, description="Port of the trainer's /health, /ready and /metrics.")
    archive_port: int = Field(8005, gt=0, le=65535, description="Port of the archive's /health, /ready and /metrics.")
    watcher_port: int = Field(
        8006, gt=0, le=65535, description="Port of the registry-watcher's /health, /ready and /metrics."
    )
    feast: bool = Field(False, description="Whether `up` and `demo` also push served vectors to Feast's online store.")
    feast_port: int = Field(8007, gt=0, le=65535, description="Port of the Feast role's /health, /ready and /metrics.")

    @property
    def external_kafka(self) -> bool:
        """Whether the environment names brokers that run already."""
        return "kafka_bootstrap_servers" in self.model_fields_set

    def apart(self, name: str) -> LocalSettings:
        """The stack of the demo, or of the soak, which keeps data of its own below this stack's folder."""
        root = self.local_dir.expanduser().resolve() / name / "stack"
        return self.model_copy(update={"local_dir": root, "data_dir": root / "data"})
