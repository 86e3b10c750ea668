"""``python -m centinela_predictor gateway|stream|feast``."""

from __future__ import annotations

import os
import sys

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def main(arguments: list[str]) -> int:
    """Run the role that *arguments* name until SIGTERM or SIGINT; the process's exit code."""
    if arguments not in (["gateway"], ["stream"], ["feast"]):
        print("usage: python -m centinela_predictor gateway|stream|feast", file=sys.stderr)
        return 2
    if arguments == ["feast"]:
        return _feast()
    from centinela.features.configured import FeaturesError, layout_of
    from centinela.process.start import start
    from centinela_predictor.settings import PredictorSettings

    role = arguments[0]
    settings, stop = start(PredictorSettings, f"predictor-{role}")
    try:
        layout_of(settings)
    except FeaturesError as error:
        print(f"centinela: {error}", file=sys.stderr)
        return 2
    if role == "gateway":
        from centinela_predictor.gateway.process import run_gateway

        return run_gateway(settings, stop)

    from centinela_predictor.stream.process import run_stream

    return run_stream(settings, stop)


def _feast() -> int:
    from centinela.process.start import start
    from centinela_predictor.feast.process import run_feast
    from centinela_predictor.feast.settings import FeastSettings

    return run_feast(*start(FeastSettings, "feast"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
