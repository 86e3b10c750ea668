"""``python -m centinela_predictor gateway|stream|feast``."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from centinela_predictor.settings import PredictorSettings

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def main(arguments: list[str]) -> int:
    """Run the role that *arguments* name until SIGTERM or SIGINT; the process's exit code."""
    if arguments not in (["gateway"], ["stream"], ["feast"]):
        print("usage: python -m centinela_predictor gateway|stream|feast", file=sys.stderr)
        return 2
    from centinela.process.start import serve

    if arguments == ["feast"]:
        from centinela_predictor.feast.process import run_feast
        from centinela_predictor.feast.settings import FeastSettings

        return serve(FeastSettings, "feast", run_feast)
    from centinela_predictor.settings import PredictorSettings

    role = arguments[0]
    return serve(PredictorSettings, f"predictor-{role}", _run_gateway if role == "gateway" else _run_stream)


def _run_gateway(settings: PredictorSettings, stop: threading.Event) -> int:
    if not _features_are_valid(settings):
        return 2
    from centinela_predictor.gateway.process import run_gateway

    return run_gateway(settings, stop)


def _run_stream(settings: PredictorSettings, stop: threading.Event) -> int:
    if not _features_are_valid(settings):
        return 2
    from centinela_predictor.stream.process import run_stream

    return run_stream(settings, stop)


def _features_are_valid(settings: PredictorSettings) -> bool:
    from centinela.features.configured import FeaturesError, layout_of

    try:
        layout_of(settings)
    except FeaturesError as error:
        print(f"centinela: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
