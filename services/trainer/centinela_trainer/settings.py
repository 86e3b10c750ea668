"""Settings of the trainer and the archive."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from centinela.model.signing import SigningKey, parse_signing_key, read_setting
from centinela.settings import Settings


class TrainerSettings(Settings):
    """Roles ``serve``, ``archive`` and ``train``."""

    trainer_port: int = Field(8004, ge=0, le=65535, description="Port of the trainer's /health, /ready and /metrics.")
    archive_port: int = Field(8005, ge=0, le=65535, description="Port of the archive's /health, /ready and /metrics.")
    params_path: Path = Field(Path("params.yaml"), description="What a training run does.")
    archive_flush_rows: int = Field(
        20_000, ge=1, description="Records that the archive buffers at most before it writes files."
    )
    archive_flush_s: float = Field(
        5.0, gt=0, description="Age of the oldest buffered record at which the archive writes files."
    )
    archive_wait_s: float = Field(
        120.0, gt=0, description="Longest wait of a training run for the archive to hold what the request relies on."
    )
    training_timeout_s: float = Field(
        1_800.0, gt=0, description="A training run that takes longer is ended and answered as failed."
    )
    training_threads: int = Field(
        1, ge=1, description="OpenMP threads of a training run; more help only where processors are idle."
    )
    snapshot_remote: str | None = Field(
        None,
        description=(
            "Where training snapshots are pushed to, in a DVC remote's layout: a folder or `s3://bucket/prefix`."
        ),
    )

    model_signing_key_file: Path | None = Field(
        None,
        description=(
            "File of the key that signs bundles, as `centinela keys signing` prints it; none are signed without."
        ),
    )
    model_signing_key: SecretStr | None = Field(None, description="The same as a value, where there is no file.")

    @property
    def signing_key(self) -> SigningKey | None:
        """What signs bundles, if anything does.

        Raises:
            InvalidSigningKeys: It cannot be read or used.
        """
        value = self.model_signing_key.get_secret_value() if self.model_signing_key is not None else None
        text = read_setting("CENTINELA_MODEL_SIGNING_KEY", value, self.model_signing_key_file)
        return None if text is None else parse_signing_key(text)

    @property
    def archive_dir(self) -> Path:
        """Where the archive is."""
        return self.data_dir / "archive"

    @property
    def training_dir(self) -> Path:
        """Requests, answers and work files of training runs."""
        return self.data_dir / "training"

    @property
    def snapshots_dir(self) -> Path:
        """Training sets by digest."""
        return self.data_dir / "snapshots"

    @property
    def skew_path(self) -> Path:
        """The newest skew report."""
        return self.data_dir / "skew" / "report.json"
