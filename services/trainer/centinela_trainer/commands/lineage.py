"""``centinela lineage``: where a verdict comes from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from centinela import topics
from centinela.kafka import connect
from centinela.model.registry import Registry
from centinela.process.start import load_settings
from centinela_trainer.archive.store import ArchiveStore
from centinela_trainer.settings import TrainerSettings
from centinela_trainer.snapshots.lineage import Trained, VerdictFound, find_verdict, trace
from centinela_trainer.snapshots.push import SnapshotRemote
from centinela_trainer.snapshots.store import SnapshotStore


def lineage(
    transaction_id: Annotated[str, typer.Argument(help="The id under which the transaction was sent.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Trace a verdict back: model version, MLflow run, training set, code commit."""
    settings = load_settings(TrainerSettings)
    verdict, trained = explain(settings, transaction_id)
    if as_json:
        typer.echo(msgspec.json.encode(as_object(settings, verdict, trained)).decode())
    else:
        _print(as_object(settings, verdict, trained))


def explain(
    settings: TrainerSettings, transaction_id: str, topic: str = topics.PREDICTIONS.name
) -> tuple[VerdictFound, Trained | None]:
    """The verdict on *transaction_id* and what made its model; None where no model gave it (loaded history).

    Raises:
        UnknownTransaction: There is no verdict on it.
        UnknownVersion: The registry has lost the version.
        DependencyUnavailable: Kafka or MLflow is unavailable.
    """
    log = connect.consumer(settings, group=None)
    try:
        verdict = find_verdict(ArchiveStore(settings.archive_dir), log, topic, transaction_id)
    finally:
        log.close()
    version = verdict.facts["model_version"]
    if version is None:
        return verdict, None
    remote = SnapshotRemote(settings.snapshot_remote) if settings.snapshot_remote else None
    return verdict, trace(Registry(settings), version, SnapshotStore(settings.snapshots_dir), remote)


def as_object(settings: TrainerSettings, verdict: VerdictFound, trained: Trained | None) -> dict[str, Any]:
    """Everything by name."""
    return {
        "transaction_id": verdict.transaction_id,
        "verdict": {**verdict.facts, "read_from": verdict.place},
        "model": (
            None
            if trained is None
            else {"name": settings.model_name, "registry": settings.mlflow_tracking_uri, **asdict(trained)}
        ),
    }


def _print(trace: dict[str, Any]) -> None:
    verdict, model = trace["verdict"], trace["model"]
    score = "no score" if verdict["score"] is None else f"score {verdict['score']:.4f} against {verdict['threshold']}"
    lines = {
        "transaction": f"{trace['transaction_id']} of {verdict['occurred_at'].isoformat()}",
        "verdict": (
            f"{verdict['decision']}, {score} ({verdict['origin']}, {verdict['variant']}); {verdict['read_from']}"
        ),
    }
    if model is None:
        lines["model"] = "none: no model was asked" + (
            ", it is loaded history" if verdict["origin"] == "history" else ""
        )
    else:
        aliases = f" ({', '.join(model['aliases'])})" if model["aliases"] else ""
        lines["model"] = f"{model['name']} version {model['version']}{aliases}, {model['model_kind']}"
        lines["run"] = (
            f"{model['run_id']} {model['run_name']}, {model['run_status']},"
            f" {model['trained_at'].isoformat(timespec='seconds')}"
            if model["run_name"]
            else f"{model['run_id'] or 'none'}: MLflow no longer has it"
        )
        lines["data"] = f"{model['dataset_digest'] or 'unknown'} at {model['dataset_at'] or 'no place known here'}"
        lines["code"] = f"commit {model['code_commit'] or 'unknown'}"
    console = Console(soft_wrap=True)
    for name, text in lines.items():
        console.print(f"{name:<12} {text}", markup=False, highlight=False)
