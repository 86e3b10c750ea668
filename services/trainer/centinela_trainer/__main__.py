"""``python -m centinela_trainer serve | archive | train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from centinela.process.start import serve
from centinela_trainer.archive.bootstrap import ARCHIVE
from centinela_trainer.archive.process import run_archive
from centinela_trainer.retraining.bootstrap import TRAINER
from centinela_trainer.retraining.child_main import answer_request
from centinela_trainer.retraining.process import run_trainer
from centinela_trainer.settings import TrainerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the role that *arguments* name; the exit code."""
    parser = argparse.ArgumentParser(prog="centinela_trainer", description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("serve", help="answer retrain requests")
    roles.add_parser("archive", help="write verdicts and labels to Parquet")
    train = roles.add_parser("train", help="answer one request")
    train.add_argument("--request", type=Path, required=True, help="file with a RetrainRequested event as JSON")
    train.add_argument("--answer", type=Path, required=True, help="where the TrainingCompleted event goes")
    train.add_argument("--guarded", action="store_true", help="end when standard input ends")
    options = parser.parse_args(arguments)
    if options.role == "train":
        return answer_request(options.request, options.answer, guarded=options.guarded)
    if options.role == "archive":
        return serve(TrainerSettings, ARCHIVE, run_archive)
    return serve(TrainerSettings, TRAINER, run_trainer)


if __name__ == "__main__":
    sys.exit(main())
