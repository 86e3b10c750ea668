"""``centinela pipeline``: the stages of ``dvc.yaml``, and what follows them. Run from the checkout's root.

What trains is imported by the command that needs it, so that ``centinela --help`` stays quick.
"""

from __future__ import annotations

import os

import typer

from centinela.clock import SystemClock
from centinela.process.start import load_settings
from centinela.telemetry.logging import configure_logging
from centinela_trainer.params import Params, load_params
from centinela_trainer.settings import TrainerSettings

app = typer.Typer(help="The stages of dvc.yaml, and the gate and registration that follow them.", no_args_is_help=True)


def _prepared() -> tuple[TrainerSettings, Params]:
    """Settings and parameters; call it before what trains is imported, for the number of its threads."""
    settings = load_settings(TrainerSettings)
    configure_logging("pipeline", level=settings.log_level, format=settings.log_format)
    os.environ.update(OMP_NUM_THREADS=str(settings.training_threads), OMP_WAIT_POLICY="PASSIVE")
    return settings, load_params(settings.params_path)


@app.command()
def preprocess() -> None:
    """Simulated days, or the file that params.yaml names, to transactions and labels."""
    _, params = _prepared()
    from centinela_trainer.pipeline import stages as pipeline_stages

    pipeline_stages.preprocess(params, SystemClock())


@app.command()
def features() -> None:
    """Transactions and labels to the training set."""
    settings, params = _prepared()
    from centinela_trainer.pipeline import stages as pipeline_stages

    pipeline_stages.features(params, settings.features_file)


@app.command()
def train() -> None:
    """The training set to a model bundle and scores of the test days."""
    settings, params = _prepared()
    from centinela_trainer.pipeline import stages as pipeline_stages

    pipeline_stages.train(params, settings.model_name)


@app.command()
def evaluate() -> None:
    """Scores to metrics and plots."""
    _, params = _prepared()
    from centinela_trainer.pipeline import stages as pipeline_stages

    verdict = pipeline_stages.evaluate(params)
    typer.echo(f"gate {'passed' if verdict.passed else 'refused'}: {verdict.reason}")


@app.command()
def gate() -> None:
    """Exit 2 unless the evaluated model reaches what params.yaml asks (`gate`)."""
    from centinela_trainer.pipeline import stages as pipeline_stages

    typer.echo(f"gate passed: average precision {pipeline_stages.require_passed():.4f}")


@app.command()
def register() -> None:
    """Register the evaluated model in MLflow as challenger: a run, a version, a snapshot. Once for each model and
    commit."""
    settings, params = _prepared()
    from centinela_trainer.pipeline.register import register_model

    completed = register_model(settings, params, SystemClock())
    typer.echo(f"{completed.model_name} version {completed.model_version}, run {completed.run_id}: {completed.reason}")
