"""MLflow: runs, models and versions of the trainer. The only module of the trainer that imports mlflow."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import msgspec
import numpy as np
import pandas as pd
import requests
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.utils import plugins
from skops.io import dumps, get_untrusted_types

from centinela.errors import DependencyUnavailable
from centinela.events import TrainingCompleted, encode
from centinela.settings import Settings
from centinela_trainer.judgement import Judgement
from centinela_trainer.training.dataset import Bools, Floats
from centinela_trainer.training.estimators import Classifier

REQUEST = "request_id"
MODEL_KIND = "model_kind"
CODE_COMMIT = "code_commit"
CHAMPION_VERSION = "champion_version"
MODEL_URI = "centinela.model_uri"
JUDGEMENT = "centinela.draft"
COMPLETED = "centinela.completed"
BUNDLE = "bundle"
_UNAVAILABLE = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
_CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Its own defaults wait for minutes."""


_T = TypeVar("_T")


def _leave_feast_out() -> None:
    """MLflow's client loads what other packages register for the headers of its requests. Where Feast is installed its
    provider loads all of Feast, for 40 % of a small training's CPU, and sends MLflow the token of the pod's service
    account."""
    every = plugins.get_entry_points
    plugins.get_entry_points = lambda group: [one for one in every(group) if one.name != "feast"]
    try:
        importlib.import_module("mlflow.tracking.request_header.registry")
    finally:
        plugins.get_entry_points = every


_leave_feast_out()


@contextmanager
def answering() -> Iterator[None]:
    """Turn the client's errors for an unavailable server into ``DependencyUnavailable``."""
    try:
        yield
    except requests.RequestException as error:
        raise DependencyUnavailable(f"MLflow does not answer: {error}", dependency="mlflow") from error
    except MlflowException as error:
        if str(error).startswith("API request to") or (hasattr(error, "json") and error.error_code in _UNAVAILABLE):
            raise DependencyUnavailable(f"MLflow does not answer: {error}", dependency="mlflow") from error
        raise


@dataclass(frozen=True)
class EarlierRun:
    """A run that was started for a request. ``judgement``: all is logged, publication may be unfinished."""

    run_id: str
    completed: TrainingCompleted | None
    judgement: Judgement | None


@dataclass(frozen=True)
class LoggedModel:
    """What of a fitted model is logged. ``example``: a few rows, shape (k, len(names))."""

    estimator: Classifier
    names: Sequence[str]
    example: Floats
    pip_requirements: Sequence[str]


@dataclass(frozen=True)
class LoggedData:
    """What a model was trained on. ``digest`` has at most 36 characters; ``source``: where the snapshot is kept."""

    name: str
    digest: str
    source: str
    matrix: Floats
    is_fraud: Bools


class Tracking:
    """Runs of the experiment that settings name."""

    def __init__(self, settings: Settings) -> None:
        for name, value in _CLIENT.items():
            os.environ.setdefault(name, value)
        mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
        self._client = mlflow.MlflowClient(settings.mlflow_tracking_uri)
        self._model_name = settings.model_name
        self._experiment_name = settings.experiment
        self._experiment_id: str | None = None

    def find(self, request_id: str) -> EarlierRun | None:
        """The run for *request_id* that got furthest; None where none was judged."""
        with answering():
            runs = self._client.search_runs(
                [self._experiment()],
                f"tags.{REQUEST} = '{_quoted(request_id)}'",
                order_by=["attributes.start_time DESC"],
            )
        earlier = [
            EarlierRun(run.info.run_id, _decode(run, COMPLETED, TrainingCompleted), _decode(run, JUDGEMENT, Judgement))
            for run in runs
        ]
        completed = next((run for run in earlier if run.completed), None)
        return completed or next((run for run in earlier if run.judgement), None)

    def fail_unfinished(self) -> list[str]:
        """Mark runs that a crash left open before they were judged as failed. Returns their ids."""
        with answering():
            runs = self._client.search_runs(
                [self._experiment()], f"attributes.status = 'RUNNING' AND tags.{REQUEST} LIKE '%'"
            )
        unfinished = [run.info.run_id for run in runs if JUDGEMENT not in run.data.tags]
        for run_id in unfinished:
            self.fail(run_id, "the training process ended before the run did")
        return unfinished

    def start(self, name: str, tags: Mapping[str, str]) -> str:
        """Open a run. Returns its id."""
        with answering():
            run: Run = self._client.create_run(self._experiment(), run_name=name, tags=dict(tags))
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run."""
        with answering():
            self._client.log_batch(
                run_id,
                params=[Param(key, str(value)) for key, value in (params or {}).items()],
                metrics=[
                    Metric(key, float(value), 0, 0) for key, value in (metrics or {}).items() if np.isfinite(value)
                ],
                tags=[RunTag(key, value) for key, value in (tags or {}).items()],
            )

    def log_artifacts(self, run_id: str, folder: Path, under: str | None = None) -> None:
        """Upload the files of *folder*."""
        with answering():
            self._client.log_artifacts(run_id, str(folder), under)

    def log_data(self, run_id: str, data: LoggedData) -> None:
        """Name the data set as the run's input (its digest and shape; the rows stay in the snapshot)."""
        source = CodeDatasetSource({"snapshot": data.source})
        dataset = from_numpy(data.matrix, source=source, targets=data.is_fraud, name=data.name, digest=data.digest)
        with answering(), self._resumed(run_id):
            mlflow.log_input(dataset, context="training")

    def log_model(self, run_id: str, model: LoggedModel) -> str:
        """Log the estimator as skops, with signature and input example. Returns the model's URI."""
        example = pd.DataFrame(model.example, columns=list(model.names))
        trusted = get_untrusted_types(data=dumps(model.estimator))
        with answering(), self._resumed(run_id), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X has feature names")
            info = mlflow.sklearn.log_model(
                model.estimator,
                name="model",
                serialization_format="skops",
                skops_trusted_types=trusted,
                signature=infer_signature(example, model.estimator.predict_proba(model.example)),
                input_example=example,
                pip_requirements=list(model.pip_requirements),
                pyfunc_predict_fn="predict_proba",
            )
        return str(info.model_uri)

    def register(self, run_id: str, model_uri: str, tags: Mapping[str, str]) -> str:
        """The model version of *run_id*: the one there is, else a new one with *tags*."""
        with answering():
            for version in self._client.search_model_versions(
                f"name = '{_quoted(self._model_name)}' AND run_id = '{run_id}'"
            ):
                return str(version.version)
            try:
                self._client.create_registered_model(self._model_name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            version = self._client.create_model_version(
                self._model_name,
                source=model_uri,
                run_id=run_id,
                tags=dict(tags),
                model_id=model_uri.rsplit("/", 1)[-1],
            )
            return str(version.version)

    def save_judgement(self, run_id: str, judgement: Judgement) -> None:
        """From here on the run need not be repeated after a crash."""
        self.log(run_id, tags={JUDGEMENT: msgspec.json.encode(judgement).decode()})

    def complete(self, run_id: str, completed: TrainingCompleted) -> None:
        """Close the run with its answer."""
        self.log(
            run_id,
            tags={COMPLETED: encode(completed).decode(), "outcome": completed.outcome, "reason": completed.reason},
        )
        with answering():
            self._client.set_terminated(run_id, "FINISHED")

    def fail(self, run_id: str, reason: str) -> None:
        """Close the run as failed."""
        self.log(run_id, tags={"outcome": "failed", "reason": reason})
        with answering():
            self._client.set_terminated(run_id, "FAILED")

    def tags(self, run_id: str) -> dict[str, str]:
        """All tags of a run."""
        with answering():
            return dict(self._client.get_run(run_id).data.tags)

    def is_running(self, run_id: str) -> bool:
        """Whether nobody closed the run."""
        with answering():
            return bool(self._client.get_run(run_id).info.status == "RUNNING")

    def _experiment(self) -> str:
        if self._experiment_id is None:
            experiment = self._client.get_experiment_by_name(self._experiment_name)
            self._experiment_id = (
                experiment.experiment_id if experiment else self._client.create_experiment(self._experiment_name)
            )
        return self._experiment_id

    @contextmanager
    def _resumed(self, run_id: str) -> Iterator[None]:
        """Make *run_id* the active run without closing it at the end."""
        mlflow.start_run(run_id=run_id)
        try:
            yield
        finally:
            mlflow.end_run("RUNNING")


def _decode(run: Run, tag: str, kind: type[_T]) -> _T | None:
    text = run.data.tags.get(tag)
    return msgspec.json.decode(text, type=kind) if text else None


def _quoted(text: str) -> str:
    return text.replace("'", "")
